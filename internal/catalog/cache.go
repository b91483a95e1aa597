// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pawl-project/pawl/internal/blob"
	"github.com/pawl-project/pawl/internal/durable"
	"github.com/pawl-project/pawl/internal/trust"
)

// Folder is a cache in a folder that exists.
type Folder string

// Load reads a file.
func (f Folder) Load(name string) ([]byte, error) {
	file, err := os.Open(filepath.Join(string(f), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, blob.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, trust.MaxRole+1)) // what is longer is refused as any damaged file
}

// Save replaces a file.
func (f Folder) Save(name string, data []byte) error {
	return durable.WriteFile(filepath.Join(string(f), name), data, 0o644)
}

// Memory is a cache for one process. Make it with make.
type Memory map[string][]byte

// Load returns what was saved.
func (m Memory) Load(name string) ([]byte, error) {
	data, ok := m[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, blob.ErrNotExist)
	}
	return data, nil
}

// Save keeps data.
func (m Memory) Save(name string, data []byte) error {
	m[name] = data
	return nil
}
