package cli

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"charm.land/huh/v2"

	"claudemesh/mcp/feed"
	"claudemesh/mesh"
)

// joined lists the slugs of the joined meshes, from config.json: what is asked before a daemon is needed.
func (c *call) joined() ([]string, error) {
	dir, err := mesh.ConfigDir(c.getenv)
	if err != nil {
		return nil, err
	}
	config, err := mesh.LoadConfig(dir)
	if err != nil {
		return nil, err
	}
	return config.Slugs(), nil
}

// inSession reports whether the environment makes this process part of a session.
func (c *call) inSession() bool {
	return c.getenv(feed.EnvToken) != "" || c.getenv(feed.EnvTokenFile) != ""
}

// mesh decides which mesh a verb is about: --mesh, else the session's, else the only one, else the one picked from a list on a terminal. interactive is
// false where stdin is used otherwise.
func (c *call) mesh(ctx context.Context, interactive bool) (string, error) {
	return c.meshNamed(ctx, c.cmd.String("mesh"), interactive)
}

// meshNamed is mesh where slug was named, in whatever way.
func (c *call) meshNamed(ctx context.Context, slug string, interactive bool) (string, error) {
	if slug == "" && c.inSession() {
		slug = c.getenv(feed.EnvMesh)
	}
	if c.inSession() && slug != "" {
		// Whether the session may use it is for the daemon to say: its config may not be ours.
		if !mesh.ValidSlug(slug) {
			return "", &unknownMeshError{slug: slug}
		}
		return slug, nil
	}
	joined, err := c.joined()
	switch {
	case err != nil:
		return "", err
	case slug != "" && !slices.Contains(joined, slug):
		return "", &unknownMeshError{slug: slug, joined: joined}
	case slug != "":
		return slug, nil
	case len(joined) == 0:
		return "", errNoMesh
	case len(joined) == 1:
		return joined[0], nil
	case !interactive || c.ui.json || !terminal(c.stdin) || !terminal(c.stderr):
		return "", &severalMeshesError{joined}
	}
	return c.pick(ctx, joined)
}

// meshes is mesh for verbs that can be about several at once: all joined ones when none is named.
func (c *call) meshes(ctx context.Context) ([]string, error) {
	if c.cmd.String("mesh") != "" || c.inSession() && c.getenv(feed.EnvMesh) != "" {
		slug, err := c.mesh(ctx, false)
		return []string{slug}, err
	}
	joined, err := c.joined()
	if err == nil && len(joined) == 0 {
		err = errNoMesh
	}
	return joined, err
}

// meshFilter is for verbs about what is on this machine, of whatever mesh: --mesh, which must be one that is joined, or "" for all.
func (c *call) meshFilter(ctx context.Context) (string, error) {
	if c.cmd.String("mesh") == "" {
		return "", nil
	}
	return c.mesh(ctx, false)
}

// pick asks on the terminal. The question goes to stderr: stdout may be taken for the result.
func (c *call) pick(ctx context.Context, slugs []string) (string, error) {
	if c.getenv("TERM") == "" || plainTerminal(c.getenv) {
		return c.pickByNumber(slugs)
	}
	slug := slugs[0]
	question := huh.NewSelect[string]().Title("Which mesh?").Description("--mesh SLUG answers this beforehand").Options(huh.NewOptions(slugs...)...).Value(&slug)
	if err := c.ask(ctx, c.stderr, huh.NewGroup(question)); err != nil {
		return "", err
	}
	return slug, nil
}

// pickByNumber asks where lines are all that can be shown. An empty line or the end of input cancels.
func (c *call) pickByNumber(slugs []string) (string, error) {
	fmt.Fprintln(c.stderr, "which mesh?")
	for i, s := range slugs {
		fmt.Fprintf(c.stderr, "  %d  %s\n", i+1, s)
	}
	in := bufio.NewReader(c.stdin)
	for {
		fmt.Fprintf(c.stderr, "number or name, empty to cancel: ")
		line, err := in.ReadString('\n')
		answer := strings.TrimSpace(line)
		if answer == "" {
			return "", errCancelled
		}
		if n, convErr := strconv.Atoi(answer); convErr == nil && n >= 1 && n <= len(slugs) {
			return slugs[n-1], nil
		}
		if slices.Contains(slugs, answer) {
			return answer, nil
		}
		if err != nil {
			return "", errCancelled
		}
		fmt.Fprintln(c.stderr, "no such choice")
	}
}
