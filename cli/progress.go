package cli

import (
	"fmt"
	"time"
)

// slowAfter is when a person at a terminal is told that something is still going on.
const slowAfter = time.Second

// patiently runs do; on a terminal, one that takes longer than a second is shown to be alive. Nothing is printed elsewhere, and nothing stays.
func (c *call) patiently(what string, do func() error) error {
	if c.ui.json || !terminal(c.stderr) {
		return do()
	}
	done := make(chan error, 1)
	go func() { done <- do() }()
	tick := c.clock.NewTicker(slowAfter)
	defer tick.Stop()
	for shown, begin := false, c.clock.Now(); ; shown = true {
		select {
		case err := <-done:
			if shown {
				fmt.Fprint(c.stderr, "\r\x1b[K")
			}
			return err
		case <-tick.Chan():
			fmt.Fprintf(c.stderr, "\r%s… %ds", what, int(c.clock.Since(begin)/time.Second))
		}
	}
}
