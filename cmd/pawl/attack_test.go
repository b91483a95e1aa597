// SPDX-License-Identifier: Apache-2.0

//go:build !agent

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pawl-project/pawl/internal/registry/embedded"
	"github.com/pawl-project/pawl/internal/sign"
	"github.com/pawl-project/pawl/internal/sign/keyfile"
	"github.com/pawl-project/pawl/internal/trust"
	"github.com/pawl-project/pawl/internal/version"
)

// The commands of scripts that attack. Private keys are opened with PAWL_PASSWORD, and the time is that of "clock".

// cmdThief is somebody who holds keys/online.key and may write into the folder of the repository:
//
//	thief invent REPOSITORY PRODUCT VERSION [KEY]   a release with a program of his own, signed by KEY or a key he makes
//	thief list REPOSITORY PRODUCT FILE              a new snapshot and timestamp that name FILE as the role of PRODUCT
func cmdThief(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 || len(args) > 5 {
		ts.Fatalf("usage: thief invent REPOSITORY PRODUCT VERSION [KEY] | thief list REPOSITORY PRODUCT FILE")
	}
	ctx := context.Background()
	t := thief{repository: ts.MkAbs(args[1]), online: signerOf(ts, "keys/online.key"), now: scriptTime(ts)}
	if len(args) == 5 {
		t.release = signerOf(ts, args[4])
	}
	switch args[0] {
	case "invent":
		v, err := version.Parse(args[3])
		ts.Check(err)
		ts.Check(t.invent(ctx, args[2], v))
	case "list":
		doc := []byte(ts.ReadFile(args[3]))
		head, err := trust.Describe(doc)
		ts.Check(err)
		stamp, snapshot, err := t.current()
		ts.Check(err)
		ts.Check(t.write(trust.MetadataName(args[2], head.Version), doc))
		ts.Check(t.publish(ctx, stamp, snapshot, args[2], trust.FileOf(head.Version, doc)))
	default:
		ts.Fatalf("thief %s: invent or list", args[0])
	}
}

// cmdResign replaces the signatures of metadata by those of other keys: resign FILE [KEY ...].
func cmdResign(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: resign FILE [KEY ...]")
	}
	doc, err := trust.Unsigned([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	for _, key := range args[1:] {
		doc, err = trust.Sign(context.Background(), doc, signerOf(ts, key))
		ts.Check(err)
	}
	ts.Check(replaceFile(ts.MkAbs(args[0]), doc))
}

func signerOf(ts *testscript.TestScript, path string) sign.Signer {
	s, err := keyfile.Open([]byte(ts.ReadFile(path)), []byte(ts.Getenv("PAWL_PASSWORD")))
	ts.Check(err)
	return s
}

func scriptTime(ts *testscript.TestScript) time.Time {
	text := ts.Getenv("PAWL_TEST_CLOCK")
	if text == "" {
		return time.Now()
	}
	if by, err := time.ParseDuration(text); err == nil {
		return time.Now().Add(by)
	}
	at, err := time.Parse(time.RFC3339, text)
	ts.Check(err)
	return at
}

// cmdLiar serves a folder over HTTP and cheats with the files whose path matches a pattern; the URL is put into a
// variable: liar VARIABLE FOLDER PATTERN HOW.
//
//	endless  bytes without end, and no length that would tell
//	longer   the file and something more
//	torn     every connection breaks after one byte that is new
//	slow     one byte, and then nothing until the client has had enough
//	silent   no answer until the client has had enough
//	broken   status 500
//	away     status 302 to a file that is not on a server
func cmdLiar(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: liar VARIABLE FOLDER PATTERN HOW")
	}
	dir, how := ts.MkAbs(args[1]), args[3]
	files := http.FileServer(http.Dir(dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		if ok, _ := filepath.Match(args[2], name); !ok {
			files.ServeHTTP(w, r)
			return
		}
		good, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		lie(w, r, how, good)
	}))
	ts.Defer(server.Close)
	ts.Setenv(args[0], server.URL)
}

func lie(w http.ResponseWriter, r *http.Request, how string, good []byte) {
	controller := http.NewResponseController(w)
	switch how {
	case "endless":
		block := make([]byte, 1<<20)
		for r.Context().Err() == nil {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	case "longer":
		w.Write(append(good[:len(good):len(good)], "and something more"...)) //nolint:errcheck // the client may go
	case "torn":
		at := 0
		if span, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
			at, _ = strconv.Atoi(strings.TrimSuffix(span, "-"))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, len(good)-1, len(good)))
		}
		w.Header().Set("ETag", `"torn"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(good)-at))
		if at > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		w.Write(good[at:min(at+1, len(good))]) //nolint:errcheck // the client may go
		controller.Flush()                     //nolint:errcheck // the same
		panic(http.ErrAbortHandler)
	case "slow":
		w.Write(good[:1])  //nolint:errcheck // the client may go
		controller.Flush() //nolint:errcheck // the same
		<-r.Context().Done()
	case "silent":
		<-r.Context().Done()
	case "broken":
		http.Error(w, "broken", http.StatusInternalServerError)
	case "away":
		http.Redirect(w, r, "http://192.0.2.1/"+r.URL.Path, http.StatusFound)
	default:
		io.WriteString(w, "the script has a mistake: "+how) //nolint:errcheck // the client may go
	}
}

// cmdRegistry starts an OCI registry and puts its host and port into a variable: registry VARIABLE.
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: registry VARIABLE")
	}
	r, err := embedded.Start(context.Background(), embedded.Options{Dir: ts.MkAbs("registry")})
	ts.Check(err)
	ts.Defer(func() { ts.Check(r.Close(context.Background())) })
	ts.Setenv(args[0], r.Host())
}
