// SPDX-License-Identifier: Apache-2.0

package catalog

import "github.com/pawl-project/pawl/internal/trust"

// Product returns what the offline keys say about a product. A publisher asks this before it signs.
func (c *Catalog) Product(name string) (trust.Product, bool) { return c.set.Product(name) }

// Role returns the verified role of a product, to which a publisher adds the next release; false if nothing of the product
// has been published, or if its role was refused.
func (c *Catalog) Role(product string) (trust.Role, bool) { return c.set.Role(product) }
