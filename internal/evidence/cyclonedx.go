// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/pawl-project/pawl/internal/digest"
	"github.com/pawl-project/pawl/internal/refusal"
)

// Limits on an SBOM that is read. Whoever made it could choose these sizes.
const (
	MaxSBOMBytes  = 64 << 20 // of the JSON text
	MaxComponents = 200_000  // nested ones included
	MaxText       = 4096     // of one name, version, package URL or other text, in bytes
	maxNesting    = 16       // of components within components
	maxLocations  = 64       // of one component; further ones are dropped
	maxObjects    = 4 << 20  // JSON objects in the text: what is kept of each is small, their number must be too
)

// Names of properties of our own in a CycloneDX document. They keep what the format has no field for.
const (
	propOpaque   = "pawl:opaque"
	propGap      = "pawl:gap"
	propDeclared = "pawl:declared"
	// propFilename comes from the taxonomy of BSI TR-03183-2.
	propFilename = "bsi:component:filename"
)

// Merge returns all components of the lists, those that are equal in package URL, name and version put together, ordered
// by package URL, name and version. A component that was seen is not one that was only declared.
func Merge(lists ...[]Component) []Component {
	all := slices.Concat(lists...)
	slices.SortStableFunc(all, func(a, b Component) int {
		return cmp.Or(cmp.Compare(a.PURL, b.PURL), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	var out []Component
	for _, c := range all {
		c.Locations, c.Licences = slices.Clone(c.Locations), slices.Clone(c.Licences)
		if n := len(out); n > 0 && out[n-1].PURL == c.PURL && out[n-1].Name == c.Name && out[n-1].Version == c.Version {
			last := &out[n-1]
			last.Locations = append(last.Locations, c.Locations...)
			last.Licences = append(last.Licences, c.Licences...)
			last.Declared = last.Declared && c.Declared
			last.Ecosystem = cmp.Or(last.Ecosystem, c.Ecosystem)
			continue
		}
		out = append(out, c)
	}
	for i := range out {
		out[i].Locations, out[i].Licences = set(out[i].Locations), set(out[i].Licences)
		if len(out[i].Locations) > maxLocations {
			out[i].Locations = out[i].Locations[:maxLocations:maxLocations]
		}
	}
	return out
}

// set sorts and drops what stands twice or is empty.
func set(list []string) []string {
	list = slices.DeleteFunc(list, func(s string) bool { return s == "" })
	if len(list) == 0 {
		return nil
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// EncodeCycloneDX returns the SBOM as CycloneDX 1.6 JSON: the artifact with both digests and its file name as the subject,
// the components with package URLs, where they lie and their licences if known, and how complete the list is. It contains
// no vulnerabilities: those change while the artifact does not. The same SBOM always gives the same bytes; the serial
// number is derived from the subject's digest.
func (s SBOM) EncodeCycloneDX() ([]byte, error) {
	switch {
	case s.Subject.Name == "":
		return nil, fmt.Errorf("cannot encode SBOM: its subject has no name")
	case s.Subject.Digest.SHA256.IsZero() || s.Subject.Digest.SHA512.IsZero():
		return nil, fmt.Errorf("cannot encode SBOM of %s: SHA-256 and SHA-512 of its subject are needed", clip(s.Subject.Name))
	case s.Created.IsZero():
		return nil, fmt.Errorf("cannot encode SBOM of %s: no time of creation", clip(s.Subject.Name))
	case len(s.Components) > MaxComponents:
		return nil, fmt.Errorf("cannot encode SBOM of %s: %d components, at most %d are allowed", clip(s.Subject.Name), len(s.Components), MaxComponents)
	}
	const subjectRef = "subject"
	subject := &cdx.Component{
		BOMRef: subjectRef, Type: cdx.ComponentTypeApplication, Name: s.Subject.Name, Version: s.Subject.Version,
		Hashes: &[]cdx.Hash{
			{Algorithm: cdx.HashAlgoSHA256, Value: s.Subject.Digest.SHA256.Hex()},
			{Algorithm: cdx.HashAlgoSHA512, Value: s.Subject.Digest.SHA512.Hex()},
		},
		Properties: &[]cdx.Property{{Name: propFilename, Value: s.Subject.Name}},
	}
	bom := cdx.NewBOM()
	bom.JSONSchema = "http://cyclonedx.org/schema/bom-1.6.schema.json"
	bom.SpecVersion = cdx.SpecVersion1_6
	bom.SerialNumber = serialNumber(s.Subject.Digest.SHA256)
	bom.Metadata = &cdx.Metadata{
		Timestamp:  s.Created.UTC().Format(time.RFC3339),
		Tools:      &cdx.ToolsChoice{Components: &[]cdx.Component{{Type: cdx.ComponentTypeApplication, Name: s.Tool.Name, Version: s.Tool.Version}}},
		Component:  subject,
		Properties: s.properties(),
	}
	if s.Tool.Name == "" {
		bom.Metadata.Tools = nil
	}

	components, refs := []cdx.Component{}, []string{}
	taken := map[string]bool{subjectRef: true}
	for _, c := range Merge(s.Components) {
		out := encodeComponent(c)
		for n := 2; taken[out.BOMRef]; n++ {
			out.BOMRef = fmt.Sprintf("%s#%d", cmp.Or(c.PURL, c.Name+"@"+c.Version), n)
		}
		taken[out.BOMRef] = true
		components, refs = append(components, out), append(refs, out.BOMRef)
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: subjectRef, Dependencies: &refs}}
	// What a tool found is never proven to be everything, so the list is not called complete.
	aggregate := cdx.CompositionAggregateUnknown
	if s.Opaque || len(s.Gaps) > 0 {
		aggregate = cdx.CompositionAggregateIncomplete
	}
	bom.Compositions = &[]cdx.Composition{{Aggregate: aggregate, Assemblies: &[]cdx.BOMReference{subjectRef}, Dependencies: &[]cdx.BOMReference{subjectRef}}}

	var out bytes.Buffer
	if err := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).Encode(bom); err != nil {
		return nil, fmt.Errorf("cannot encode SBOM of %s: %w", clip(s.Subject.Name), err)
	}
	if out.Len() > MaxSBOMBytes {
		return nil, fmt.Errorf("cannot encode SBOM of %s: %d bytes, at most %d are allowed", clip(s.Subject.Name), out.Len(), MaxSBOMBytes)
	}
	return out.Bytes(), nil
}

func (s SBOM) properties() *[]cdx.Property {
	var list []cdx.Property
	if s.Opaque {
		list = append(list, cdx.Property{Name: propOpaque, Value: "true"})
	}
	for _, gap := range s.Gaps {
		list = append(list, cdx.Property{Name: propGap, Value: gap})
	}
	if list == nil {
		return nil
	}
	return &list
}

func encodeComponent(c Component) cdx.Component {
	out := cdx.Component{
		BOMRef: cmp.Or(c.PURL, c.Name+"@"+c.Version), Type: cdx.ComponentTypeLibrary,
		Name: c.Name, Version: c.Version, PackageURL: c.PURL, Licenses: licences(c.Licences),
	}
	if len(c.Locations) > 0 {
		var list []cdx.EvidenceOccurrence
		for _, at := range c.Locations {
			list = append(list, cdx.EvidenceOccurrence{Location: at})
		}
		out.Evidence = &cdx.Evidence{Occurrences: &list}
	}
	if c.Declared {
		out.Properties = &[]cdx.Property{{Name: propDeclared, Value: "true"}}
	}
	return out
}

// expression is the shape of an SPDX licence expression (SPDX specification 2.3, annex D), not the list of its names.
var expression = regexp.MustCompile(`^\(*[A-Za-z0-9.+:-]+\)*( (AND|OR|WITH) \(*[A-Za-z0-9.+:-]+\)*)*$`)

// licences writes one text as an SPDX expression if it looks like one; the schema allows one expression or any number
// of names, not both.
func licences(list []string) *cdx.Licenses {
	switch {
	case len(list) == 0:
		return nil
	case len(list) == 1 && expression.MatchString(list[0]):
		return &cdx.Licenses{{Expression: list[0]}}
	}
	var out cdx.Licenses
	for _, name := range list {
		out = append(out, cdx.LicenseChoice{License: &cdx.License{Name: name}})
	}
	return &out
}

// serialNumber is a UUID of version 8 (RFC 9562, section 5.8) from the first 16 bytes of a hash.
func serialNumber(d digest.SHA256) string {
	h := sha256.Sum256(append([]byte("pawl CycloneDX serial number\x00"), d[:]...))
	h[6] = h[6]&0x0f | 0x80
	h[8] = h[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// The part of a CycloneDX document that is read. The library's types are not used for reading: they hold several hundred
// bytes for every "{}" and refuse documents for members that nobody here looks at.
type (
	document struct {
		Format      string        `json:"bomFormat"`
		SpecVersion string        `json:"specVersion"`
		Metadata    metadata      `json:"metadata"`
		Components  componentList `json:"components"`
	}
	metadata struct {
		Timestamp  string         `json:"timestamp"`
		Tools      jsontext.Value `json:"tools"` // a list before version 1.5, an object since
		Component  *wireComponent `json:"component"`
		Properties []property     `json:"properties"`
	}
	wireComponent struct {
		Type       string        `json:"type"`
		Group      string        `json:"group"`
		Name       string        `json:"name"`
		Version    string        `json:"version"`
		PURL       string        `json:"purl"`
		Hashes     []hash        `json:"hashes"`
		Licences   []licence     `json:"licenses"`
		Properties []property    `json:"properties"`
		Evidence   occurrences   `json:"evidence"`
		Components componentList `json:"components"`
	}
	componentList []wireComponent
	hash          struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	licence struct {
		Expression string `json:"expression"`
		Licence    struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"license"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	occurrences struct {
		Occurrences []struct {
			Location string `json:"location"`
		} `json:"occurrences"`
	}
)

// DecodeCycloneDX reads an SBOM in CycloneDX 1.6 or 1.7 JSON, of any tool. It is strict about what decides: the version
// of the format, and the subject, which must be named by a SHA-256; everything else that a tool may write is skipped. The
// ecosystem of each component is derived from its package URL. Every error is a refusal of class Malformed.
func DecodeCycloneDX(data []byte) (SBOM, error) {
	if len(data) > MaxSBOMBytes {
		return SBOM{}, badSBOM("%d bytes, at most %d are allowed", len(data), MaxSBOMBytes)
	}
	if n := bytes.Count(data, []byte{'{'}); n > maxObjects {
		return SBOM{}, badSBOM("%d objects, at most %d are allowed", n, maxObjects)
	}
	var doc document
	count := 0
	err := json.Unmarshal(data, &doc, json.WithUnmarshalers(json.UnmarshalFromFunc(func(dec *jsontext.Decoder, list *componentList) error {
		return decodeList(dec, list, &count)
	})))
	if err != nil {
		return SBOM{}, badSBOM("%w", err)
	}
	if doc.Format != "CycloneDX" {
		return SBOM{}, badSBOM("format %q is not CycloneDX", clip(doc.Format))
	}
	if doc.SpecVersion != "1.6" && doc.SpecVersion != "1.7" {
		return SBOM{}, badSBOM("CycloneDX version %q is neither 1.6 nor 1.7", clip(doc.SpecVersion))
	}
	if doc.Metadata.Component == nil {
		return SBOM{}, badSBOM("it does not say what it is about: no metadata.component")
	}
	s := SBOM{Tool: tool(doc.Metadata.Tools)}
	if s.Subject, err = subjectOf(*doc.Metadata.Component); err != nil {
		return SBOM{}, err
	}
	if doc.Metadata.Timestamp != "" {
		if s.Created, err = time.Parse(time.RFC3339, doc.Metadata.Timestamp); err != nil {
			return SBOM{}, badSBOM("timestamp: %w", err)
		}
		s.Created = s.Created.UTC().Truncate(time.Second)
	}
	for _, p := range doc.Metadata.Properties {
		switch p.Name {
		case propOpaque:
			s.Opaque = p.Value == "true"
		case propGap:
			if len(p.Value) > MaxText {
				return SBOM{}, badSBOM("a text of %d bytes, at most %d are allowed", len(p.Value), MaxText)
			}
			s.Gaps = append(s.Gaps, p.Value)
		}
	}
	var all []Component
	// Some tools nest what they found below the subject.
	for _, list := range []componentList{doc.Components, doc.Metadata.Component.Components} {
		if all, err = flatten(all, list, 0); err != nil {
			return SBOM{}, err
		}
	}
	s.Components = Merge(all)
	return s, nil
}

// decodeList reads a list of components, nested ones included, up to the limit.
func decodeList(dec *jsontext.Decoder, list *componentList, count *int) error {
	if dec.PeekKind() == 'n' {
		return dec.SkipValue()
	}
	if dec.PeekKind() != '[' {
		return fmt.Errorf("components are not a list")
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != ']' {
		if *count++; *count > MaxComponents {
			return fmt.Errorf("more than %d components", MaxComponents)
		}
		var c wireComponent
		// The options of the decoder, with this function among them, are passed on.
		if err := json.UnmarshalDecode(dec, &c, dec.Options()); err != nil {
			return err
		}
		*list = append(*list, c)
	}
	_, err := dec.ReadToken()
	return err
}

// subjectOf reads the artifact that an SBOM is about.
func subjectOf(c wireComponent) (Subject, error) {
	s := Subject{Name: c.fullName(), Version: c.Version}
	if s.Name == "" || len(s.Name) > MaxText || len(s.Version) > MaxText {
		return Subject{}, badSBOM("the subject has no name, or one that is too long")
	}
	for _, h := range c.Hashes {
		switch h.Algorithm {
		case "SHA-256":
			d, err := digest.ParseHex(h.Content)
			if err != nil {
				return Subject{}, badSBOM("subject: %w", err)
			}
			if !s.Digest.SHA256.IsZero() && s.Digest.SHA256 != d {
				return Subject{}, badSBOM("the subject has two different SHA-256")
			}
			s.Digest.SHA256 = d
		case "SHA-512":
			d, err := digest.ParseHex512(h.Content)
			if err != nil {
				return Subject{}, badSBOM("subject: %w", err)
			}
			if !s.Digest.SHA512.IsZero() && s.Digest.SHA512 != d {
				return Subject{}, badSBOM("the subject has two different SHA-512")
			}
			s.Digest.SHA512 = d
		}
	}
	if s.Digest.SHA256.IsZero() {
		return Subject{}, badSBOM("the subject has no SHA-256: it is not bound to an artifact")
	}
	return s, nil
}

func flatten(all []Component, list componentList, depth int) ([]Component, error) {
	if depth > maxNesting {
		return nil, badSBOM("components nested deeper than %d", maxNesting)
	}
	for _, w := range list {
		if w.counts() {
			c, err := w.component()
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
		var err error
		if all, err = flatten(all, w.Components, depth+1); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// counts reports whether w is a package. Files, data, and the operating system as such are not; neither is an application
// without package URL, by which tools mean the lock file in which they found packages.
func (w wireComponent) counts() bool {
	switch w.Type {
	case "file", "data", "operating-system", "machine-learning-model", "cryptographic-asset":
		return false
	case "application":
		return w.PURL != ""
	}
	return true
}

// fullName joins group and name: CycloneDX splits "@scope/name" and "example.com/module" there.
func (w wireComponent) fullName() string {
	if w.Group == "" {
		return w.Name
	}
	return w.Group + "/" + w.Name
}

func (w wireComponent) component() (Component, error) {
	c := Component{Name: w.fullName(), Version: w.Version, PURL: w.PURL}
	if c.Name == "" {
		return Component{}, badSBOM("a component without a name")
	}
	for _, l := range w.Licences {
		c.Licences = append(c.Licences, cmp.Or(l.Expression, l.Licence.ID, l.Licence.Name))
	}
	for _, o := range w.Evidence.Occurrences {
		c.Locations = append(c.Locations, o.Location)
	}
	for _, p := range w.Properties {
		c.Declared = c.Declared || p.Name == propDeclared && p.Value == "true"
	}
	for _, text := range slices.Concat([]string{c.Name, c.Version, c.PURL}, c.Licences, c.Locations) {
		if len(text) > MaxText {
			return Component{}, badSBOM("component %q: a text of %d bytes, at most %d are allowed", clip(c.Name), len(text), MaxText)
		}
	}
	c.Ecosystem = c.Package().Ecosystem
	return c, nil
}

// tool returns the first tool that a document names, in the form of any version of the format; none is no error.
func tool(value jsontext.Value) Tool {
	var object struct {
		Components []Tool `json:"components"`
	}
	if err := json.Unmarshal(value, &object); err == nil && len(object.Components) > 0 {
		return object.Components[0].clipped()
	}
	var list []Tool
	if err := json.Unmarshal(value, &list); err == nil && len(list) > 0 {
		return list[0].clipped()
	}
	return Tool{}
}

func (t Tool) clipped() Tool {
	return Tool{Name: strings.ToValidUTF8(clip(t.Name), ""), Version: strings.ToValidUTF8(clip(t.Version), "")}
}

func badSBOM(format string, args ...any) error {
	return refusal.New(refusal.Malformed, "SBOM", format, args...)
}

func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
