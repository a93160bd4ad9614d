package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/itchyny/gojq"
)

// jqFilter is the expression of --jq, compiled. It sees neither the environment nor any file, only the result.
type jqFilter struct {
	ctx  context.Context // of the run: an expression may never end, and printing is not handed a context
	code *gojq.Code
}

// newFilter compiles an expression. It is done before the verb runs, so that a typing error changes nothing.
func newFilter(ctx context.Context, expr string) (*jqFilter, error) {
	query, err := gojq.Parse(expr)
	if err == nil {
		var code *gojq.Code
		if code, err = gojq.Compile(query); err == nil {
			return &jqFilter{ctx, code}, nil
		}
	}
	return nil, &usageError{message: "--jq: " + cleanLine(err.Error()), hint: "an expression of the jq language, such as --jq '.[].displayName'"}
}

// print writes what the filter makes of a value: a string as its text, everything else as JSON, each on a line.
func (f *jqFilter) print(raw json.RawMessage, out io.Writer) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // an id of 20 digits stays what it is
	var v any
	if err := dec.Decode(&v); err != nil {
		return fmt.Errorf("decode result for --jq: %w", err)
	}
	for it := f.code.RunWithContext(f.ctx, v); ; {
		v, ok := it.Next()
		if !ok {
			return nil
		}
		line, err := f.line(v, out)
		var halt *gojq.HaltError
		switch {
		case errors.As(err, &halt) && halt.Value() == nil:
			return nil
		case f.ctx.Err() != nil:
			return errCancelled
		case err != nil:
			return &filterError{err}
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
}

func (f *jqFilter) line(v any, out io.Writer) (string, error) {
	switch v := v.(type) {
	case error:
		return "", v
	case string:
		if terminal(out) {
			return clean(v), nil
		}
		return v, nil
	}
	b, err := gojq.Marshal(v)
	return string(b), err
}

// filterError: the verb has done its work, and the expression of --jq does not fit the result.
type filterError struct{ err error }

func (e *filterError) Error() string {
	return "the command is done, but --jq fails on its result: " + cleanLine(e.err.Error())
}
