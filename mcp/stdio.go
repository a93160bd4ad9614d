package mcp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// maxLineIn is how long a line from the client may be, in bytes without the newline. In the other direction Claude Code drops the connection at 16 MB; all that
// is written is bounded far below: messages by frame, skills and tools where they are read.
const maxLineIn = 16 << 20

// errLineTooLong means that a message does not fit one line of the transport.
var errLineTooLong = errors.New("message longer than a line may be")

// methodDiscover is the probe of newer clients. A connection that agrees to the protocol behind it gets no channel messages, and a probe that is not
// answered costs the client three seconds: it is refused at once.
const methodDiscover = "server/discover"

// stdio is the newline-delimited JSON-RPC connection to the MCP client. Unlike the SDK's own, it survives a line that is no message, refuses the discover
// probe, and lets notifications of our own through.
type stdio struct {
	lines <-chan line
	log   *slog.Logger
	once  sync.Once
	done  chan struct{}

	mu  sync.Mutex // one line at a time
	out io.Writer
}

type line struct {
	text []byte
	err  error
}

// newStdio starts reading in. Its goroutine ends with in, or with the connection at the next line: reading a terminal cannot be interrupted.
func newStdio(in io.Reader, out io.Writer, log *slog.Logger) *stdio {
	lines := make(chan line)
	c := &stdio{lines: lines, log: log, done: make(chan struct{}), out: out}
	go readLines(in, lines, c.done)
	return c
}

func readLines(in io.Reader, lines chan<- line, done <-chan struct{}) {
	r := bufio.NewReaderSize(in, 64<<10)
	for {
		text, err := readLine(r)
		if errors.Is(err, errLineTooLong) {
			continue // the rest of it has been skipped
		}
		if len(text) > 0 || err != nil {
			select {
			case lines <- line{text, err}:
			case <-done:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// readLine reads one line. Of a longer one than maxLineIn it keeps nothing and returns errLineTooLong.
func readLine(r *bufio.Reader) ([]byte, error) {
	var text []byte
	long := false
	for {
		part, err := r.ReadSlice('\n')
		if long = long || len(text)+len(part) > maxLineIn+1; long {
			text = nil
		} else {
			text = append(text, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err == nil && long {
			return nil, errLineTooLong
		}
		return text, err
	}
}

// Read returns the next message for the SDK.
func (c *stdio) Read(ctx context.Context) (jsonrpc.Message, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.done:
			return nil, io.EOF
		case l := <-c.lines:
			if len(l.text) > 0 {
				msg, err := c.accept(ctx, l.text)
				if msg != nil || err != nil {
					return msg, err
				}
			}
			if l.err != nil {
				return nil, io.EOF
			}
		}
	}
}

// accept decodes one line; nil means that it was dealt with here.
func (c *stdio) accept(ctx context.Context, text []byte) (jsonrpc.Message, error) {
	msg, err := jsonrpc.DecodeMessage(text)
	if err != nil {
		if len(trim(text)) == 0 {
			return nil, nil
		}
		c.log.Warn("the MCP client sent a line that is no message", "bytes", len(text))
		return nil, nil
	}
	req, ok := msg.(*jsonrpc.Request)
	if !ok || req.Method != methodDiscover {
		return msg, nil
	}
	if !req.IsCall() {
		return nil, nil
	}
	return nil, c.Write(ctx, &jsonrpc.Response{ID: req.ID, Error: &jsonrpc.Error{Code: jsonrpc.CodeMethodNotFound, Message: "method not found"}})
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r' || b[len(b)-1] == ' ') {
		b = b[:len(b)-1]
	}
	return b
}

// Write writes one message as one line. When it returns nil the operating system has the whole line.
func (c *stdio) Write(ctx context.Context, msg jsonrpc.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	text, err := jsonrpc.EncodeMessage(msg)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.out.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("write to the MCP client: %w", err)
	}
	return nil
}

// Notify sends a notification of our own.
func (c *stdio) Notify(ctx context.Context, method string, params json.RawMessage) error {
	return c.Write(ctx, &jsonrpc.Request{Method: method, Params: params})
}

// Close ends Read. The streams belong to the caller.
func (c *stdio) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

// SessionID implements sdk.Connection: stdio has none.
func (c *stdio) SessionID() string { return "" }

// Connect implements sdk.Transport.
func (c *stdio) Connect(context.Context) (sdk.Connection, error) { return c, nil }
