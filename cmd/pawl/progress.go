// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/schollz/progressbar/v3"
)

// progressDelay is how long work may take before it is shown: most work is over sooner.
const progressDelay = time.Second

// bar draws the progress of work whose size is known (total bytes) or not (total -1), on a terminal and only when it
// takes longer than a second. update takes the bytes that are done so far; done removes the bar.
func (a *app) bar(what string, total int64) (update func(int64), done func()) {
	if !a.terminal || a.json {
		return func(int64) {}, func() {}
	}
	began := time.Now()
	var bar *progressbar.ProgressBar
	update = func(n int64) {
		if bar == nil {
			if time.Since(began) < progressDelay {
				return
			}
			bar = progressbar.NewOptions64(total, progressbar.OptionSetDescription(what), progressbar.OptionSetWriter(a.err),
				progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond),
				progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(true), progressbar.OptionFullWidth())
		}
		_ = bar.Set64(n) // a terminal that cannot be drawn on is no reason to stop
	}
	return update, func() {
		if bar != nil {
			_ = bar.Finish()
		}
	}
}
