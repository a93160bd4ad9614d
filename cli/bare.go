package cli

import (
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v3"
)

// bare reads a command line that names no command: an invite is joined and launched on, and in a terminal claudemesh alone is claudemesh launch. Everything
// else stays as it is; where nobody sits at a terminal, nothing is started without being named.
func (a *app) bare(root *urfave.Command, args []string) []string {
	launch := root.Command("launch")
	path := []*urfave.Command{root, launch}
	for i := 0; i < len(args) && args[i] != "--"; i++ {
		name, _, attached := flagWord(args[i])
		if name == "" {
			if !strings.Contains(args[i], "://") {
				return args
			}
			if strings.HasPrefix(strings.ToLower(args[i]), linkStart) {
				return slices.Concat([]string{"url-handler", "open"}, args) // from a page or a mail: it is asked about
			}
			return slices.Concat([]string{launch.Name, "--join=" + args[i]}, args[:i], args[i+1:])
		}
		f := findFlag(path, name)
		switch {
		case f == nil, slices.Contains([]string{"help", "version", "json"}, f.Names()[0]):
			return args
		case takesValue(f) && !attached:
			i++
		}
	}
	if !terminal(a.stdin) || !terminal(a.stdout) {
		return args
	}
	return append([]string{launch.Name}, args...)
}
