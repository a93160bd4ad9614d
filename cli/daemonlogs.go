package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/daemon/logfile"
)

// logEvery is how often daemon logs --follow looks.
const logEvery = 200 * time.Millisecond

func daemonLogsVerb() verb {
	return verb{
		name: "logs", aliases: []string{"log"}, args: "", short: "show what the daemon has logged",
		long: `Shows the last lines of daemon.log, over the older files beside it when it has just begun; --follow goes on until it is interrupted, over
restarts of the daemon, too. It needs no daemon. --json prints an array of objects (with --follow, one a line), each with time, level, msg and
the fields of the line; what is not of the daemon's own making (the report of a crash) has the level OUTPUT.`,
		examples: []string{"claudemesh daemon logs --lines 200", "claudemesh daemon logs -f", "claudemesh daemon logs --json --level warn"},
		fails:    []string{"3  a number or a level that is none", "5  there is no log yet"},
		flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what comes"},
			&urfave.IntFlag{Name: "lines", Aliases: []string{"n"}, Value: 50, Usage: "begin with the last `N` lines (default 50)"},
			&urfave.StringFlag{Name: "level", Usage: "only this `LEVEL` and what is worse: debug, info, warn, error"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh daemon logs"); err != nil {
				return err
			}
			return c.logs(ctx)
		},
	}
}

// levels from the least, as the log spells them.
func levels() []string { return []string{"DEBUG", "INFO", "WARN", "ERROR"} }

func (c *call) logs(ctx context.Context) error {
	least := 0
	if want := c.cmd.String("level"); want != "" {
		if least = slices.Index(levels(), strings.ToUpper(want)); least < 0 {
			return usagef("level %s is none of debug, info, warn and error", quoted(want))
		}
	}
	n := c.cmd.Int("lines")
	if n < 0 || n > 100_000 {
		return usagef("--lines is a number from 0 to 100000")
	}
	dir, err := c.daemonDir()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, logFile)
	if c.cmd.Bool("follow") {
		return logfile.Follow(ctx, path, n, logfile.Keep, c.clock, logEvery, func(line string) error {
			e := readLogLine(line)
			switch {
			case !e.atLeast(least):
				return nil
			case c.ui.json:
				return c.ui.printJSON(e.fields, true)
			}
			return c.printLogLine(e)
		})
	}
	if _, err := os.Stat(path); err != nil {
		if _, older := os.Stat(path + ".1"); older != nil {
			return &failure{Code: "no_log", Message: "there is no log yet: " + path, Hint: "the daemon makes it when it starts: claudemesh daemon up", Exit: exitNotFound}
		}
	}
	lines, err := logfile.Last(path, n, logfile.Keep)
	if err != nil {
		return err
	}
	entries, all := []logEntry{}, []map[string]any{}
	for _, line := range lines {
		if e := readLogLine(line); e.atLeast(least) {
			entries, all = append(entries, e), append(all, e.fields)
		}
	}
	return c.ui.result(all, func() error {
		for _, e := range entries {
			if err := c.printLogLine(e); err != nil {
				return err
			}
		}
		return nil
	})
}

// logEntry is one line of the log.
type logEntry struct {
	fields map[string]any
	order  []string // names of the fields beyond time, level and msg, as written
}

// readLogLine takes a line apart. What the daemon did not log itself, a crash for instance, is text of the level OUTPUT.
func readLogLine(line string) logEntry {
	e := logEntry{fields: map[string]any{}}
	dec := json.NewDecoder(bytes.NewReader([]byte(line)))
	dec.UseNumber()
	if err := dec.Decode(&e.fields); err != nil || e.fields == nil || e.fields["msg"] == nil {
		return logEntry{fields: map[string]any{"level": outputLevel, "msg": line}}
	}
	for name := range e.fields {
		if name != "time" && name != "level" && name != "msg" {
			e.order = append(e.order, name)
		}
	}
	slices.Sort(e.order)
	return e
}

const outputLevel = "OUTPUT"

// atLeast reports whether an entry is of a level or worse; output is as bad as can be.
func (e logEntry) atLeast(least int) bool {
	level, _ := e.fields["level"].(string)
	i := slices.Index(levels(), level)
	return i < 0 || i >= least
}

// printLogLine prints an entry for people: local time, level, what happened, and its fields. Peers choose some of the values.
func (c *call) printLogLine(e logEntry) error {
	level := fmt.Sprint(e.fields["level"])
	if level == outputLevel {
		return c.ui.print("%s", cleanLine(fmt.Sprint(e.fields["msg"])))
	}
	head := cleanLine(fmt.Sprint(e.fields["time"]))
	if t, err := time.Parse(time.RFC3339Nano, head); err == nil {
		head = t.Local().Format("2006-01-02 15:04:05.000")
	}
	var b strings.Builder
	for _, name := range e.order {
		v := e.fields[name]
		text, isText := v.(string)
		if !isText {
			raw, err := json.Marshal(v)
			if err != nil {
				return err
			}
			text = string(raw)
		}
		text = cleanLine(text)
		if isText && (text == "" || strings.ContainsAny(text, " \"=")) {
			text = fmt.Sprintf("%q", text)
		}
		b.WriteString(" " + c.ui.paint(dim, cleanLine(name)+"=") + text)
	}
	colour := map[string]string{"WARN": yellow, "ERROR": red}[level]
	shown := fmt.Sprintf("%-5s", cleanLine(level))
	if colour != "" {
		shown = c.ui.paint(colour, shown)
	}
	return c.ui.print("%s %s %s%s", c.ui.paint(dim, head), shown, c.ui.paint(bold, cleanLine(fmt.Sprint(e.fields["msg"]))), b.String())
}
