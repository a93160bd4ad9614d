package account

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// ErrBox is wrapped for a package that cannot be opened or understood: it was not sealed by that machine for this one, or was changed on the way.
var ErrBox = errors.New("sealed package cannot be opened")

// maxMeshes bounds what one package may carry.
const maxMeshes = 256

// Content is what one machine seals for another: its memberships, secret keys included, and the machines that it trusts. Admit, if there is one, is the tag of
// the code's secret by which a machine that was just let in knows the one that did it (mesh.DeviceAdmits, then the keys of both).
type Content struct {
	V       int           `json:"v"`
	Account string        `json:"account"` // id
	Admit   string        `json:"admit,omitempty"`
	Name    string        `json:"name,omitempty"` // of the sealing machine
	Meshes  []mesh.Joined `json:"meshes"`
	Trusted []TrustedPeer `json:"trusted,omitempty"`
}

// contentVersion is the only one there is.
const contentVersion = 1

// Seal locks content for the machine whose key is to.
func Seal(from mesh.Identity, to string, c Content, random io.Reader) (wire.SealedBox, error) {
	c.V = contentVersion
	text, err := json.Marshal(c)
	if err != nil {
		return wire.SealedBox{}, fmt.Errorf("encode package: %w", err)
	}
	nonce, sealed, err := mesh.Seal(from, to, text, random)
	if err != nil {
		return wire.SealedBox{}, fmt.Errorf("seal package: %w", err)
	}
	box := wire.SealedBox{To: to, Nonce: base64.StdEncoding.EncodeToString(nonce), Box: base64.StdEncoding.EncodeToString(sealed)}
	if err := box.Validate(); err != nil {
		return box, fmt.Errorf("seal package: too many meshes for one package: %w", err)
	}
	return box, nil
}

// Open reads a package for this machine. What it says is the word of whoever holds the key box.From: whether that is trusted is for the caller to say.
func Open(device mesh.Identity, accountID string, box wire.SealedBox) (Content, error) {
	bad := func(what string) (Content, error) { return Content{}, fmt.Errorf("%w: %s", ErrBox, what) }
	if err := box.Validate(); err != nil {
		return bad("too large")
	}
	nonce, err1 := base64.StdEncoding.DecodeString(box.Nonce)
	sealed, err2 := base64.StdEncoding.DecodeString(box.Box)
	if err1 != nil || err2 != nil || box.To != device.PublicKey() {
		return bad("it is not for this machine")
	}
	text, err := mesh.Open(device, box.From, nonce, sealed)
	if err != nil {
		return bad("it was not sealed by that machine, or was changed")
	}
	var c Content
	switch {
	case json.Unmarshal(text, &c) != nil: // the decoder's message may quote a key
		return bad("its content is malformed")
	case c.V != contentVersion:
		return bad("another version of the program has made it")
	case c.Account != accountID:
		return bad("it is of another account")
	case len(c.Meshes) > maxMeshes || len(c.Trusted) > wire.MaxDevices:
		return bad("it holds too much")
	}
	for _, j := range c.Meshes {
		if _, err := j.Identity(); err != nil || !mesh.ValidSlug(j.Slug) || !mesh.ValidBrokerURL(j.BrokerURL) || j.MeshID == "" || j.MemberID == "" {
			return bad("a membership in it is malformed")
		}
	}
	for _, p := range c.Trusted {
		if !mesh.ValidKey(p.Pubkey) {
			return bad("a key in it is malformed")
		}
	}
	return c, nil
}
