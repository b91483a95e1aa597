// SPDX-License-Identifier: Apache-2.0

// Command greeter is a small product to release, scan, update and attack: an HTTP service that greets in the language of
// its visitor. Version 1.0.0 is built with golang.org/x/text v0.3.5, in which one Accept-Language header stops the request
// (CVE-2021-38561); version 1.0.1 is built with the release that fixes it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"golang.org/x/text/language"
)

// version is set when a release is built: -ldflags "-X main.version=1.0.0".
var version = "devel"

var greetings = map[language.Tag]string{
	language.English: "Hello",
	language.German:  "Guten Tag",
	language.French:  "Bonjour",
	language.Spanish: "Buenos días",
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8090", "`address` to listen on")
	show := flag.Bool("version", false, "print the version and end")
	check := flag.Bool("check", false, "greet once without listening, and end: a health check")
	accept := flag.String("greet", "", "greet once the sender of this Accept-Language `header`, and end")
	flag.Parse()
	if err := run(*listen, *show, *check, *accept); err != nil {
		fmt.Fprintln(os.Stderr, "greeter:", err)
		os.Exit(1)
	}
}

func run(listen string, show, check bool, accept string) error {
	switch {
	case show:
		fmt.Println(version)
		return nil
	case check:
		if got := greet("de-CH, en;q=0.5"); got != "Guten Tag" {
			return fmt.Errorf("greets %q", got)
		}
		fmt.Println("ok")
		return nil
	case accept != "":
		fmt.Println(greet(accept))
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s, this is greeter %s\n", greet(r.Header.Get("Accept-Language")), version)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, version) })
	server := &http.Server{Addr: listen, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// greet returns the greeting that fits an Accept-Language header best (RFC 9110, section 12.5.4).
func greet(acceptLanguage string) string {
	tags := []language.Tag{language.English, language.German, language.French, language.Spanish}
	wanted, _, err := language.ParseAcceptLanguage(acceptLanguage)
	if err != nil {
		return greetings[language.English]
	}
	_, i, _ := language.NewMatcher(tags).Match(wanted...)
	return greetings[tags[i]]
}
