// SPDX-License-Identifier: Apache-2.0

package main

// The commands of the agent are being written by the lead.
