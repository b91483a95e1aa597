// SPDX-License-Identifier: Apache-2.0

// Package ceremony creates and changes who may sign what: root keys and their threshold, the online key, and the keys of
// every product.
package ceremony
