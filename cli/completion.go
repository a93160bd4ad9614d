package cli

import (
	"context"
	"embed"
	"fmt"
	"path"
	"strings"

	urfave "github.com/urfave/cli/v3"
)

// Completion: a script per shell, which asks the program what can stand at the cursor. The scripts are our own: those of the library evaluate the typed line
// and let the shell expand the answers, and among ours are names that other people chose.

//go:embed completion
var completionScripts embed.FS

// completionShells are the shells and the ends of their scripts' names.
func completionShells() [][2]string {
	return [][2]string{{"bash", "bash"}, {"zsh", "zsh"}, {"fish", "fish"}, {"powershell", "ps1"}, {"pwsh", "ps1"}}
}

func completionVerb() verb {
	return verb{
		name: "completion", aliases: []string{"completions"}, args: "bash|zsh|fish|powershell", short: "print the script that completes commands in your shell",
		long: `Commands, flags, meshes and, where a daemon runs, peers, topics and sessions. It never starts a daemon and waits for none.

  bash        source <(claudemesh completion bash)                                    in ~/.bashrc
  zsh         source <(claudemesh completion zsh)                                     in ~/.zshrc, behind compinit
  fish        claudemesh completion fish > ~/.config/fish/completions/claudemesh.fish
  powershell  claudemesh completion powershell | Out-String | Invoke-Expression       in $PROFILE`,
		examples: []string{"claudemesh completion bash"},
		fails:    []string{"3  no shell, or none of these"},
		run: func(_ context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh completion bash|zsh|fish|powershell"); err != nil {
				return err
			}
			for _, s := range completionShells() {
				if s[0] != c.args()[0] {
					continue
				}
				script, err := completionScripts.ReadFile(path.Join("completion", "claudemesh."+s[1]))
				if err != nil {
					return fmt.Errorf("read completion script: %w", err)
				}
				return c.ui.result(map[string]any{"shell": s[0], "script": string(script)}, func() error {
					return c.ui.print("%s", strings.TrimSuffix(string(script), "\n"))
				})
			}
			return &usageError{message: "no completion for " + quoted(c.args()[0]), hint: "there is one for bash, zsh, fish and powershell"}
		},
	}
}

// completeVerb is what the scripts run. Nobody reads an error of it, so there are none: what cannot be found out is not offered.
func completeVerb() verb {
	return verb{
		name: "__complete", args: "WORD…", short: "list what can stand at the cursor", hidden: true,
		long:     "WORDs are those in front of the cursor, --current is the one at it. A line is a word, a tab and what it is.",
		examples: []string{"claudemesh __complete --current=te -- peer list --mesh"},
		fails:    []string{"0  whatever happens: a shell has no use for an error here"},
		flags:    []urfave.Flag{&urfave.StringFlag{Name: "current", Usage: "the `WORD` at the cursor"}},
		run: func(ctx context.Context, c *call) error {
			ctx, cancel := context.WithTimeout(ctx, completeLimit)
			defer cancel()
			found := (&completer{call: c, before: c.args(), current: unquoted(c.cmd.String("current"))}).find(ctx)
			return c.ui.result(found, func() error {
				for _, f := range found {
					if err := c.ui.print("%s\t%s", f.Word, f.What); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}
