// SPDX-License-Identifier: Apache-2.0

// Package yamlx reads configuration files: YAML, strictly, with errors that show the line and point at the place.
//
// A configuration is read into a Go struct. What the struct does not have is an error that names what was probably
// meant; so are a key that stands twice, a value of another type, and a second document. A value for a text is taken as it is
// written: 1.10 is "1.10" and not "1.1", and "no" is a word. Anchors, aliases, tags and merge keys are refused: they make a
// small file large, and no configuration of pawl needs them. Size and depth are bounded.
//
// The syntax is parsed by goccy/go-yaml; the way from its tree into the struct is this package's own, because a wrong
// value has to be refused at its place in the file, also when it is refused by the type that reads it.
//
// Fields are named by the tag `yaml:"name"`; a field without one, or with "-", is not part of the file. A field that is
// absent, or has no value, keeps what it held before: set defaults first. Types that implement Unmarshaler or
// encoding.TextUnmarshaler read themselves.
package yamlx

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits on a configuration file.
const (
	MaxBytes = 1 << 20
	MaxDepth = 32
	// maxExcerpt bounds the line that an error shows, in characters.
	maxExcerpt = 120
)

// Unmarshaler is a type that reads itself: it calls decode with a pointer to what it wants to see there, more than once
// if it takes more than one form. An error without a place gets the place of the value.
type Unmarshaler interface {
	UnmarshalYAML(decode func(into any) error) error
}

// Error is a mistake at a place in a file.
type Error struct {
	Path   string // as it was given
	Line   int    // from 1; 0 if the mistake has no place
	Column int    // from 1, in characters
	Text   string
	// Excerpt is the line itself.
	Excerpt string
	err     error
}

// Error returns "agent.yaml:3:5: text", and below it the line with a caret under the place.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Path + ": " + e.Text
	}
	head := fmt.Sprintf("%s:%d:%d: %s", e.Path, e.Line, e.Column, e.Text)
	if e.Excerpt == "" {
		return head
	}
	number := strconv.Itoa(e.Line)
	return fmt.Sprintf("%s\n  %s | %s\n  %s | %s^", head, number, e.Excerpt, strings.Repeat(" ", len(number)), strings.Repeat(" ", e.Column-1))
}

// Unwrap returns the cause, if there is one.
func (e *Error) Unwrap() error { return e.err }

// Decode reads data, the bytes of the file path, into the struct that into points to. Errors are *Error.
func Decode(path string, data []byte, into any) error {
	doc, err := Parse(path, data)
	if err != nil {
		return err
	}
	return doc.Decode(into)
}

// Document is a parsed file.
type Document struct {
	path  string
	lines []string
	body  ast.Node // nil if the file is empty
}

// Parse reads the syntax of data, the bytes of the file path.
func Parse(path string, data []byte) (*Document, error) {
	d := &Document{path: path}
	if len(data) > MaxBytes {
		return nil, &Error{Path: path, Text: fmt.Sprintf("%d bytes, at most %d are allowed", len(data), MaxBytes)}
	}
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	d.lines = strings.Split(text, "\n")
	// Control characters have no business in a configuration and would act on the terminal that shows an error.
	for i, line := range d.lines {
		if j := strings.IndexFunc(line, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f || c == '\uFFFD' }); j >= 0 {
			return nil, d.at(i+1, len([]rune(line[:j]))+1, "a character that is not text")
		}
	}
	tokens := lexer.Tokenize(text)
	if err := d.checkTokens(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		return nil, d.syntax(err)
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if d.body != nil {
			return nil, d.errorAt(doc.Body, "a second document: one file holds one configuration")
		}
		d.body = doc.Body
	}
	return d, nil
}

// checkTokens refuses what makes a small file large or deep, before the recursive parser sees it.
func (d *Document) checkTokens(tokens token.Tokens) error {
	flow, lineOf, entries := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != lineOf {
			lineOf, entries = t.Position.Line, 0
		}
		deep := false
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType, token.TagType, token.DirectiveType:
			return d.at(t.Position.Line, t.Position.Column, fmt.Sprintf("%q: anchors, aliases, tags and directives are not used here", t.Value))
		case token.SequenceStartType, token.MappingStartType:
			flow++
			deep = flow > MaxDepth
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType:
			// "- - - -" and "? ? ? ?" nest on one line.
			entries++
			deep = flow == 0 && entries > MaxDepth
		}
		// In block style every level needs an indentation of its own.
		if deep || flow == 0 && t.Type == token.MappingValueType && t.Position.IndentNum > 8*MaxDepth {
			return d.at(t.Position.Line, t.Position.Column, fmt.Sprintf("nested too deeply: at most %d levels are allowed", MaxDepth))
		}
	}
	return nil
}

// Decode reads the document into the struct that into points to.
func (d *Document) Decode(into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return fmt.Errorf("cannot read %s: the target is not a pointer", d.path)
	}
	if d.body == nil {
		return nil
	}
	return d.decode(d.body, v.Elem(), 0)
}

// Errorf returns an error at the value that where names: keys with dots and numbers in brackets,
// "products[0].channel". If that is not in the file, the error is at what is there of it. %w keeps a cause.
func (d *Document) Errorf(where string, format string, args ...any) error {
	node := d.body
	for part := range strings.FieldsFuncSeq(where, func(c rune) bool { return strings.ContainsRune(".[]", c) }) {
		next := child(node, part)
		if next == nil {
			break
		}
		node = next
	}
	said := fmt.Errorf(format, args...)
	err := &Error{Path: d.path, Text: said.Error()}
	if node != nil {
		err = d.errorAt(node, said.Error())
	}
	err.err = errors.Unwrap(said)
	return err
}

func child(node ast.Node, name string) ast.Node {
	switch n := node.(type) {
	case *ast.SequenceNode:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(n.Values) {
			return n.Values[i]
		}
	default:
		pairs, _ := mapping(node)
		for _, pair := range pairs {
			if keyText(pair) == name {
				return pair.Value
			}
		}
	}
	return nil
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
	selfType     = reflect.TypeFor[Unmarshaler]()
)

func (d *Document) decode(node ast.Node, v reflect.Value, depth int) error {
	if depth > MaxDepth {
		return d.errorAt(node, fmt.Sprintf("nested too deeply: at most %d levels are allowed", MaxDepth))
	}
	if _, empty := node.(*ast.NullNode); empty {
		return nil
	}
	if v.CanAddr() && v.Addr().Type().Implements(selfType) {
		err := v.Addr().Interface().(Unmarshaler).UnmarshalYAML(func(into any) error {
			target := reflect.ValueOf(into)
			if target.Kind() != reflect.Pointer || target.IsNil() {
				return fmt.Errorf("the target is not a pointer")
			}
			return d.decode(node, target.Elem(), depth+1)
		})
		return d.place(node, err)
	}
	if v.CanAddr() && v.Addr().Type().Implements(textType) {
		text, err := d.scalar(node, "a text")
		if err != nil {
			return err
		}
		return d.place(node, v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)))
	}
	if v.Type() == durationType {
		text, err := d.scalar(node, "a duration")
		if err != nil {
			return err
		}
		duration, err := time.ParseDuration(text)
		if err != nil {
			return d.errorAt(node, fmt.Sprintf("%q is not a duration, for example 90s, 15m or 6h", clip(text)))
		}
		v.SetInt(int64(duration))
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		if err := d.decode(node, fresh.Elem(), depth); err != nil {
			return err
		}
		v.Set(fresh)
		return nil
	case reflect.Struct:
		return d.decodeStruct(node, v, depth)
	case reflect.Slice:
		return d.decodeSlice(node, v, depth)
	case reflect.Map:
		return d.decodeMap(node, v, depth)
	}
	return d.decodeScalar(node, v)
}

func (d *Document) decodeScalar(node ast.Node, v reflect.Value) error {
	switch v.Kind() {
	case reflect.String:
		text, err := d.scalar(node, "a text")
		if err != nil {
			return err
		}
		v.SetString(text)
	case reflect.Bool:
		b, ok := node.(*ast.BoolNode)
		if !ok {
			return d.mismatch(node, "true or false")
		}
		v.SetBool(b.Value)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, err := strconv.ParseInt(number(node), 10, v.Type().Bits())
		if err != nil {
			return d.mismatch(node, "a whole number")
		}
		v.SetInt(i)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		u, err := strconv.ParseUint(number(node), 10, v.Type().Bits())
		if err != nil {
			return d.mismatch(node, fmt.Sprintf("a whole number from 0 to %d", uint64(1)<<(v.Type().Bits()-1)*2-1))
		}
		v.SetUint(u)
	case reflect.Float32, reflect.Float64:
		text, err := d.scalar(node, "a number")
		if err != nil {
			return err
		}
		f, err := strconv.ParseFloat(text, v.Type().Bits())
		if err != nil {
			return d.mismatch(node, "a number")
		}
		v.SetFloat(f)
	default:
		return fmt.Errorf("cannot read %s: no way to read a %s", d.path, v.Type())
	}
	return nil
}

func (d *Document) decodeStruct(node ast.Node, v reflect.Value, depth int) error {
	pairs, ok := mapping(node)
	if !ok {
		return d.mismatch(node, "keys with values")
	}
	fields := map[string]int{}
	var names []string
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		fields[name] = i
		names = append(names, name)
	}
	return d.eachPair(pairs, func(key string, pair *ast.MappingValueNode) error {
		i, known := fields[key]
		if !known {
			return d.errorAt(pair.Key, fmt.Sprintf("unknown key %q; %s", clip(key), suggest(key, names)))
		}
		return d.decode(pair.Value, v.Field(i), depth+1)
	})
}

func (d *Document) decodeSlice(node ast.Node, v reflect.Value, depth int) error {
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		return d.mismatch(node, "a list")
	}
	out := reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values))
	for i, value := range list.Values {
		if _, empty := value.(*ast.NullNode); empty {
			return d.errorAt(value, "an entry without a value")
		}
		if err := d.decode(value, out.Index(i), depth+1); err != nil {
			return err
		}
	}
	v.Set(out)
	return nil
}

func (d *Document) decodeMap(node ast.Node, v reflect.Value, depth int) error {
	pairs, ok := mapping(node)
	if !ok || v.Type().Key().Kind() != reflect.String {
		return d.mismatch(node, "keys with values")
	}
	out := reflect.MakeMapWithSize(v.Type(), len(pairs))
	err := d.eachPair(pairs, func(key string, pair *ast.MappingValueNode) error {
		value := reflect.New(v.Type().Elem()).Elem()
		if err := d.decode(pair.Value, value, depth+1); err != nil {
			return err
		}
		out.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), value)
		return nil
	})
	if err == nil {
		v.Set(out)
	}
	return err
}

func (d *Document) eachPair(pairs []*ast.MappingValueNode, fn func(string, *ast.MappingValueNode) error) error {
	seen := make(map[string]bool, len(pairs))
	for _, pair := range pairs {
		key := keyText(pair)
		if seen[key] {
			return d.errorAt(pair.Key, fmt.Sprintf("key %q stands twice", clip(key)))
		}
		seen[key] = true
		if err := fn(key, pair); err != nil {
			return err
		}
	}
	return nil
}

// mapping returns the pairs of a mapping; the parser has two shapes for it.
func mapping(node ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

func keyText(pair *ast.MappingValueNode) string {
	if t := pair.Key.GetToken(); t != nil {
		return t.Value
	}
	return ""
}

// scalar returns a single value as it is written in the file.
func (d *Document) scalar(node ast.Node, wanted string) (string, error) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.LiteralNode:
		return n.Value.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, nil
	}
	return "", d.mismatch(node, wanted)
}

func number(node ast.Node) string {
	if n, ok := node.(*ast.IntegerNode); ok {
		return n.Token.Value
	}
	return ""
}

func (d *Document) mismatch(node ast.Node, wanted string) error {
	got := "another value"
	switch n := node.(type) {
	case *ast.SequenceNode:
		got = "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		got = "keys with values"
	case *ast.StringNode:
		got = fmt.Sprintf("the text %q", clip(n.Value))
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		got = clip(n.GetToken().Value)
	}
	return d.errorAt(node, fmt.Sprintf("%s is expected here, not %s", wanted, got))
}

// place gives err the place of node, unless it has one.
func (d *Document) place(node ast.Node, err error) error {
	if err == nil || errors.As(err, new(*Error)) {
		return err
	}
	placed := d.errorAt(node, err.Error())
	placed.err = err
	return placed
}

func (d *Document) errorAt(node ast.Node, text string) *Error {
	if pairs, ok := mapping(node); ok && len(pairs) > 0 && pairs[0].Key != nil {
		node = pairs[0].Key // the token of a mapping is its first colon
	}
	if t := node.GetToken(); t != nil && t.Position != nil {
		return d.at(t.Position.Line, t.Position.Column, text)
	}
	return &Error{Path: d.path, Text: text}
}

// at makes an error with the line that it is about. A line that is too long is shown around the place.
func (d *Document) at(line, column int, text string) *Error {
	e := &Error{Path: d.path, Line: line, Column: max(1, column), Text: text}
	if line < 1 || line > len(d.lines) {
		return e
	}
	runes := []rune(d.lines[line-1])
	for i, c := range runes {
		if c < ' ' || c == 0x7f || c == '\uFFFD' {
			runes[i] = ' ' // a tab would move the caret
		}
	}
	if e.Column <= maxExcerpt {
		e.Excerpt = string(runes[:min(len(runes), maxExcerpt)])
	}
	return e
}

func (d *Document) syntax(err error) error {
	var at yaml.Error
	if errors.As(err, &at) {
		if t := at.GetToken(); t != nil && t.Position != nil {
			return d.at(t.Position.Line, t.Position.Column, clip(at.GetMessage()))
		}
		return &Error{Path: d.path, Text: clip(at.GetMessage())}
	}
	return &Error{Path: d.path, Text: clip(err.Error()), err: err}
}

// suggest says what was probably meant.
func suggest(key string, names []string) string {
	best, distance := "", 3
	for _, name := range names {
		if n := edits(key, name, distance); n < distance {
			best, distance = name, n
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	slices.Sort(names)
	return "known here: " + strings.Join(names, ", ")
}

// edits counts the insertions, deletions and changes of letters between two words, up to most.
func edits(a, b string, most int) int {
	if len(a) > 64 || len(a)-len(b) >= most || len(b)-len(a) >= most {
		return most
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := last
			if a[i] != b[j] {
				change++
			}
			last = row[j+1]
			row[j+1] = min(change, row[j]+1, last+1)
		}
	}
	return row[len(b)]
}

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
