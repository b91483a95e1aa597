// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/internal/build"
	"github.com/pawl-project/pawl/internal/build/image"
)

func TestBuilder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway")
	b := image.Builder{Name: "gateway", Spec: image.Spec{Platform: "linux/arm64", Files: []image.File{{Path: file, To: "/gateway"}}}}
	if err := b.Check(); err == nil || !strings.Contains(err.Error(), "image gateway: ") {
		t.Errorf("without its file: %v", err)
	}
	if err := os.WriteFile(file, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	in := build.Input{Product: "gateway", Version: "1.0.0", Out: t.TempDir()}
	list, err := b.Build(t.Context(), in)
	if err != nil || len(list) != 1 || list[0].Name != "gateway" || !list[0].Image {
		t.Fatalf("%+v, %v", list, err)
	}
	if err := build.Check(in.Out, list); err != nil {
		t.Error(err)
	}
}
