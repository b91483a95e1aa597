// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/pawl-project/pawl/internal/refusal"
)

// maxAmbiguous is the size above which nobody reads a file as metadata or as a signature payload, in bytes.
const maxAmbiguous = 128 << 20

// CheckBlob refuses to sign a file that could be taken for something else that the release key signs. A signature over a
// file is one over its bare SHA-256, and so are those over a DSSE envelope, over the older payload of an image, and over
// TUF metadata: a file with the bytes of such a thing would turn the signature of a file into the signature of a release,
// of an image, or of a whole catalogue. Whoever builds a file chooses its bytes, so the check comes before every SignBlob.
//
// It reads no further than it must: nearly always one buffer. The refusal has class Malformed; another error is that of src.
func CheckBlob(src io.Reader) error {
	limited := &io.LimitedReader{R: src, N: maxAmbiguous + 1}
	r := bufio.NewReader(limited)
	const dsse = "DSSEv1 "
	head, err := r.Peek(len(dsse))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if string(head) == dsse {
		return ambiguous("it begins like a signed statement (DSSE)")
	}
	for {
		c, err := r.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case strings.IndexByte(" \t\r\n", c) >= 0:
			continue
		case c != '{':
			return nil
		}
		break
	}
	// The most lenient reading counts: readers elsewhere ignore case and take the last of two members.
	d := jsontext.NewDecoder(io.MultiReader(strings.NewReader("{"), r), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	found, err := member(d)
	var syntax *jsontext.SyntacticError
	switch {
	case limited.N == 0, errors.As(err, &syntax), errors.Is(err, io.ErrUnexpectedEOF):
		return nil // too large, or not JSON: no reader takes it for metadata
	case err != nil:
		return err
	case found != "":
		return ambiguous(found)
	}
	return nil
}

// member looks for the members of an object that make it metadata or a payload. It reads the object to its end: what is
// broken further on is not JSON, and nothing to be afraid of.
func member(d *jsontext.Decoder) (found string, err error) {
	if _, err := d.ReadToken(); err != nil {
		return "", err
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return "", err
		}
		key := strings.ToLower(name.String())
		value, err := d.ReadValue()
		if err != nil {
			return "", err
		}
		switch {
		case key == "critical" && value.Kind() == '{':
			found = "it reads like the payload of an image signature"
		case key == "_type" && slices.ContainsFunc([]string{`"root"`, `"targets"`, `"snapshot"`, `"timestamp"`, `"mirrors"`}, func(role string) bool {
			return value.Compact() == nil && bytes.Equal(value, []byte(role))
		}):
			found = "it reads like the metadata of a repository (TUF)"
		}
	}
	_, err = d.ReadToken()
	return found, err
}

func ambiguous(why string) error {
	return refusal.New(refusal.Malformed, "file to sign", "%s: a signature over it could be used for something else", why).
		Do("pack the file into an archive, and release that")
}
