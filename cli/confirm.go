package cli

import (
	"bufio"
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v3"
)

// yesFlag goes with confirm.
func yesFlag() urfave.Flag {
	return &urfave.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do it without asking"}
}

// confirm asks on the terminal before something that cannot be taken back, unless --yes says so already. Where nobody can be asked, --yes is needed.
// Anything but yes cancels.
func (c *call) confirm(question string) error {
	if c.cmd.Bool("yes") {
		return nil
	}
	if c.ui.json || !terminal(c.stdin) || !terminal(c.stderr) {
		return &usageError{message: "this needs to be confirmed, and there is nobody to ask", hint: "say --yes (-y) to do it"}
	}
	fmt.Fprintf(c.stderr, "%s [y/N] ", question)
	line, _ := bufio.NewReader(c.stdin).ReadString('\n') // the end of the input is a no
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return errCancelled
}
