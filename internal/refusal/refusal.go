// SPDX-License-Identifier: Apache-2.0

// Package refusal is the vocabulary of "no": every class of refusal, its exit status, and the words that a person needs.
//
// A refusal is a result, not a fault of the program. It says what was checked, what failed and what to do next, and its
// class decides the exit status, which is a promise to scripts: a number is never given a second meaning.
package refusal

import (
	"errors"
	"fmt"
)

// Class is a kind of refusal. The text is what --json prints.
type Class string

// The classes. Trust comes first, then the decision on a device, then the gates of a release, then publishing.
const (
	Signature    Class = "signature"    // not signed by the required keys, or by too few of them
	Digest       Class = "digest"       // bytes are not the bytes that were signed
	Rollback     Class = "rollback"     // older than what is known: metadata, version, or below the floor
	Expired      Class = "expired"      // metadata too old to trust: a freeze, or a wrong clock
	Mixed        Class = "mixed"        // metadata that does not belong together, or contradicts itself
	WrongTarget  Class = "wrong-target" // for another product, hardware, line or source version
	OwnerPolicy  Class = "owner-policy" // the owner of the device has not agreed (opted out, postponed, not approved)
	Unhealthy    Class = "unhealthy"    // installed, not healthy in time, put back
	Vulnerable   Class = "vulnerable"   // the release brings new known vulnerabilities
	FalseFix     Class = "false-fix"    // a fix is claimed and is not true
	Incomplete   Class = "incomplete"   // a security release lacks what the law or the product asks for
	NotProven    Class = "not-proven"   // a check could not be made, so it does not count as passed
	Conflict     Class = "conflict"     // the version exists with other content, or somebody else published meanwhile
	Unauthorised Class = "unauthorised" // the server does not know the caller, or not for this product
	Malformed    Class = "malformed"    // untrusted input that is not what it says it is, or over a limit
	Busy         Class = "busy"         // another process holds the lock
	Key          Class = "key"          // a private key cannot be opened: missing or wrong password, not a key file
)

// Row documents one exit status.
type Row struct {
	Status  int
	Class   Class // empty for the statuses that are not refusals
	Meaning string
}

// Statuses that are not refusals.
const (
	Done              = 0
	Failed            = 1
	Usage             = 2
	UpdateAvailable   = 3
	SecurityAvailable = 4
	Cancelled         = 130
)

// Table lists every exit status of the program. The manual, the man page and --json are made from it.
func Table() []Row {
	return []Row{
		{Done, "", "done"},
		{Failed, "", "an error: the message says what could not be done"},
		{Usage, "", "the command line or a configuration file is wrong"},
		{UpdateAvailable, "", "agent check: a feature release is available"},
		{SecurityAvailable, "", "agent check: a security release is available"},
		{10, Signature, "not signed by the required keys, or by too few of them"},
		{11, Digest, "bytes differ from the bytes that were signed"},
		{12, Rollback, "older than what is already known, or below the floor"},
		{13, Expired, "metadata has expired: somebody holds back news, or a clock is wrong"},
		{14, Mixed, "metadata does not belong together or contradicts itself"},
		{15, WrongTarget, "made for another product, hardware, line or source version"},
		{16, OwnerPolicy, "the owner of the device has not agreed to it"},
		{17, Unhealthy, "the new version was not healthy in time and the previous one was put back"},
		{20, Vulnerable, "the release brings new known vulnerabilities"},
		{21, FalseFix, "a claimed fix is not true"},
		{22, Incomplete, "a security release lacks something that it must have"},
		{23, NotProven, "a check could not be made; what is not proven does not pass"},
		{24, Conflict, "the version exists with other content, or somebody else published meanwhile"},
		{25, Unauthorised, "the server does not accept the caller"},
		{26, Malformed, "input is not what it says it is, or is over a limit"},
		{27, Busy, "another process is at work here"},
		{28, Key, "a private key cannot be opened"},
		{Cancelled, "", "cancelled by a signal"},
	}
}

// Error is a refusal with its reasons.
type Error struct {
	Class   Class
	Checked string // what was checked, as a noun phrase: "metadata of product greeter"
	Failed  string // what failed, with numbers: "signature threshold not met (1 of 2)"
	Next    string // what the reader can do, as a sentence without a full stop; may be empty
	Err     error  // the cause, if there is one; its text is expected to be part of Failed
}

// New returns a refusal. Failed is formatted; %w keeps the cause for errors.Is.
func New(class Class, checked string, format string, args ...any) *Error {
	cause := fmt.Errorf(format, args...)
	return &Error{Class: class, Checked: checked, Failed: cause.Error(), Err: errors.Unwrap(cause)}
}

// Do returns a copy of e that tells the reader what to do.
func (e *Error) Do(format string, args ...any) *Error {
	c := *e
	c.Next = fmt.Sprintf(format, args...)
	return &c
}

// Error returns "refused (class): checked: failed".
func (e *Error) Error() string {
	if e.Checked == "" {
		return fmt.Sprintf("refused (%s): %s", e.Class, e.Failed)
	}
	return fmt.Sprintf("refused (%s): %s: %s", e.Class, e.Checked, e.Failed)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, &Error{Class: c}) ask for a class.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Class == e.Class && t.Failed == ""
}

// Of returns the class of the outermost refusal in err's chain, or "" if err is not a refusal.
func Of(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return ""
}

// Status returns the exit status for err: 0 for nil, the status of the class for a refusal, 1 for everything else.
func Status(err error) int {
	if err == nil {
		return Done
	}
	class := Of(err)
	for _, row := range Table() {
		if class != "" && row.Class == class {
			return row.Status
		}
	}
	return Failed
}
