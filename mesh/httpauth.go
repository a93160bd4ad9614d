package mesh

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A member proves itself to a broker's HTTP side by a signature over the request, in the header
//
//	Authorization: Claudemesh-Key mesh=MESHID,key=PUBKEY,ts=UNIXMS,body=SHA256,sig=SIGNATURE
//
// PUBKEY and SHA256 are 64 hex digits, SIGNATURE 128. SHA256 is that of the whole body. The format is ours; a reference broker does not know it.

// HTTPAuthScheme begins the header's value.
const HTTPAuthScheme = "Claudemesh-Key "

// ErrBadAuth is returned for a header that is not of that form.
var ErrBadAuth = errors.New("malformed authorization")

// HTTPAuth is the header, taken apart.
type HTTPAuth struct {
	MeshID, Pubkey string
	Timestamp      int64  // Unix milliseconds
	BodyHash       string // hex SHA-256
	Signature      string
}

// HTTPString is what is signed. target is the request target: path and query as sent.
func HTTPString(method, target, meshID, pubkey string, unixMS int64, bodyHash string) []byte {
	return []byte("claudemesh-http|" + method + "|" + target + "|" + meshID + "|" + pubkey + "|" + strconv.FormatInt(unixMS, 10) + "|" + bodyHash)
}

// SignHTTP makes the header's value for a request of the member who.
func SignHTTP(who Identity, method, target, meshID, bodyHash string, now time.Time) string {
	ts := now.UnixMilli()
	sig := who.Sign(HTTPString(method, target, meshID, who.PublicKey(), ts, bodyHash))
	return fmt.Sprintf("%smesh=%s,key=%s,ts=%d,body=%s,sig=%s", HTTPAuthScheme, meshID, who.PublicKey(), ts, bodyHash, sig)
}

// ParseHTTPAuth takes a header's value apart. It checks shapes, not the signature. Errors: ErrBadAuth.
func ParseHTTPAuth(header string) (a HTTPAuth, err error) {
	rest, ok := strings.CutPrefix(header, HTTPAuthScheme)
	if !ok || len(header) > 1024 {
		return a, ErrBadAuth
	}
	for _, part := range strings.Split(rest, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch key {
		case "mesh":
			a.MeshID = value
		case "key":
			a.Pubkey = value
		case "ts":
			if a.Timestamp, err = strconv.ParseInt(value, 10, 64); err != nil {
				return HTTPAuth{}, ErrBadAuth
			}
		case "body":
			a.BodyHash = value
		case "sig":
			a.Signature = value
		}
	}
	if a.MeshID == "" || len(a.MeshID) > 64 || !ValidKey(a.Pubkey) || !ValidKey(a.BodyHash) || len(a.Signature) != 128 {
		return HTTPAuth{}, ErrBadAuth
	}
	return a, nil
}

// Verify checks the signature for a request with that method and target.
func (a HTTPAuth) Verify(method, target string) bool {
	return VerifySignature(a.Pubkey, HTTPString(method, target, a.MeshID, a.Pubkey, a.Timestamp, a.BodyHash), a.Signature)
}
