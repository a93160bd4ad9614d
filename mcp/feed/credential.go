package feed

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// ErrNoToken means that the environment announces a session but its token cannot be had: the file is gone, unreadable or no token. It is an error and
// not "no session", because a caller must never fall back to a wider credential.
var ErrNoToken = errors.New("the token of this session cannot be read")

// Names of the environment variables that make a process part of a session.
const (
	EnvSession   = "CLAUDEMESH_SESSION_ID"
	EnvTokenFile = "CLAUDEMESH_IPC_TOKEN_FILE"
	EnvToken     = "CLAUDEMESH_IPC_TOKEN" // the token itself; for tests, since process listings show environments
	EnvMesh      = "CLAUDEMESH_MESH"
	EnvName      = "CLAUDEMESH_DISPLAY_NAME"
	EnvRole      = "CLAUDEMESH_ROLE" // absent when the session has none
)

// Credential is who a client of the bus is, and the proof.
type Credential struct {
	Actor string // a session id
	Token string // 64 hex digits; a secret
}

// String shows the actor only.
func (c Credential) String() string { return "credential(" + c.Actor + ")" }

// GoString shows the actor only.
func (c Credential) GoString() string { return c.String() }

// SessionCredential reads the credential of the session this process belongs to. ok is false when the environment names none. The token is read anew at
// each call, so a file that is replaced takes effect at the next connection. Errors wrap ErrNoToken.
func SessionCredential(getenv func(string) string) (c Credential, ok bool, err error) {
	c.Actor = getenv(EnvSession)
	literal, file := getenv(EnvToken), getenv(EnvTokenFile)
	if literal == "" && file == "" {
		return Credential{}, false, nil
	}
	if c.Actor == "" {
		return Credential{}, false, fmt.Errorf("%w: %s is not set", ErrNoToken, EnvSession)
	}
	if literal != "" {
		c.Token = literal
	} else {
		var err error
		if c.Token, err = ReadToken(file); err != nil {
			return Credential{}, false, err
		}
	}
	if !isToken(c.Token) {
		return Credential{}, false, errNotHex
	}
	return c, true, nil
}

var errNotHex = fmt.Errorf("%w: it is not 64 hex digits", ErrNoToken)

// maxTokenFile is more than a token and its newline take.
const maxTokenFile = 256

// ReadToken reads a token file of the daemon. Errors wrap ErrNoToken.
func ReadToken(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoToken, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoToken, err)
	}
	token := strings.TrimSpace(string(b))
	if !isToken(token) {
		return "", errNotHex
	}
	return token, nil
}

func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return len(s) == 64
}
