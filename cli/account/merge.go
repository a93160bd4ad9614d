package account

import (
	"fmt"

	"claudemesh/mesh"
)

// Merge adds memberships to config.json that are not in it, by the mesh's id, and returns the slugs that they have here. What is there is never changed: the
// same mesh under another key stays as it is.
func Merge(dir string, from []mesh.Joined) (added []string, err error) {
	err = mesh.UpdateConfig(dir, func(c *mesh.Config) error {
		taken, known := map[string]bool{}, map[string]bool{}
		for _, j := range c.Meshes {
			taken[j.Slug], known[j.MeshID] = true, true
		}
		for _, j := range from {
			if known[j.MeshID] {
				continue
			}
			base := j.Slug
			for n := 2; taken[j.Slug]; n++ {
				j.Slug = fmt.Sprintf("%s-%d", base, n)
			}
			if !mesh.ValidSlug(j.Slug) {
				return fmt.Errorf("mesh %q has no slug that is free here", base)
			}
			taken[j.Slug], known[j.MeshID] = true, true
			c.Meshes = append(c.Meshes, j)
			added = append(added, j.Slug)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return added, nil
}
