// SPDX-License-Identifier: Apache-2.0

// Package serve is the update server: the repository over HTTP for everybody, an authenticated way to publish, and reports of devices.
package serve
