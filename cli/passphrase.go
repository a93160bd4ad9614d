package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"

	urfave "github.com/urfave/cli/v3"
	"golang.org/x/term"
)

// A passphrase comes from the terminal, unseen, or from a file or stdin; never from the arguments, which every process of the machine can read.

const (
	minPassphrase = 12
	maxPassphrase = 4 << 10
)

func passphraseFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "passphrase-file", Usage: "`FILE` whose first line is the passphrase; - for stdin (default: asked for on the terminal)"}
}

// passphrase gets it; twice asks a second time, where it is a new one.
func (c *call) passphrase(twice bool) ([]byte, error) {
	text, err := c.readPassphrase(twice)
	switch {
	case err != nil:
		return nil, err
	case twice && len(text) < minPassphrase:
		return nil, usagef("a passphrase has at least %d characters: whoever gets the file can try as many as they like", minPassphrase)
	case len(text) == 0:
		return nil, usagef("the passphrase is empty")
	}
	return text, nil
}

func (c *call) readPassphrase(twice bool) ([]byte, error) {
	if file := c.cmd.String("passphrase-file"); file != "" {
		in := c.stdin
		if file != "-" {
			f, err := os.Open(file)
			if err != nil {
				return nil, fmt.Errorf("read passphrase file: %w", err)
			}
			defer f.Close()
			in = f
		}
		text, err := io.ReadAll(io.LimitReader(in, maxPassphrase))
		if err != nil {
			return nil, fmt.Errorf("read passphrase: %w", err)
		}
		line, _, _ := bytes.Cut(text, []byte("\n"))
		return bytes.TrimSuffix(line, []byte("\r")), nil
	}
	in, ok := c.stdin.(*os.File)
	if !ok || !terminal(c.stdin) || !terminal(c.stderr) {
		return nil, &usageError{message: "a passphrase is needed, and there is nobody to ask", hint: "put it into a file of your own: --passphrase-file FILE, or - for stdin"}
	}
	ask := func(question string) ([]byte, error) {
		fmt.Fprint(c.stderr, question)
		text, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(c.stderr)
		if err != nil {
			return nil, errCancelled
		}
		return text, nil
	}
	text, err := ask("passphrase: ")
	if err != nil || !twice {
		return text, err
	}
	again, err := ask("once more: ")
	if err == nil && !bytes.Equal(text, again) {
		err = usagef("the two passphrases differ; nothing was written")
	}
	return text, err
}
