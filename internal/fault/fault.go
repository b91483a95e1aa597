// SPDX-License-Identifier: Apache-2.0

// Package fault marks the places before and after every outward effect, so that a test can stop the program there.
//
// A program that runs for a user carries no injector: a point is then one look-up in a context. Tests put an injector
// into the context and kill the process at a chosen point, in both forms: before the effect ("it failed and nothing
// happened") and after it, before anybody has written it down ("it failed, but it happened").
package fault

import "context"

type key struct{}

// Injector is called at every point; it may not return.
type Injector func(point string)

// With returns a context in which every point calls inject.
func With(ctx context.Context, inject Injector) context.Context {
	return context.WithValue(ctx, key{}, inject)
}

// Around runs effect between the points name+":before" and name+":after". The second is reached only if effect worked.
func Around(ctx context.Context, name string, effect func() error) error {
	inject, _ := ctx.Value(key{}).(Injector)
	if inject == nil {
		return effect()
	}
	inject(name + ":before")
	if err := effect(); err != nil {
		return err
	}
	inject(name + ":after")
	return nil
}
