package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Sharing a file: it is encrypted here with a key of its own, which is sealed for each recipient and for this member. The broker sees names, sizes and who
// may have it; never a byte of it.

const (
	maxChunkRequest = bus.FileChunkSize*4/3 + 4<<10
	keysPerUpload   = 48 // sealed keys in the headers of an upload, which are bounded; the others are granted after it
	transferLimit   = time.Hour
	maxUploadReply  = 64 << 10
)

// sharing is what is to be done with a file when all of it is there.
type sharing struct {
	req bus.FileBegin
	to  *recipient // nil: everybody
}

func (d *Daemon) beginFile(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.FileBegin
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	m, err := d.permit(ctx, c.Actor, mesh.CapFiles, req.Mesh)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(wire.CheckFileName(req.Name), wire.CheckFileTags(req.Tags)); err != nil {
		return nil, &bus.APIError{Code: 400, Reason: "bad_file", Detail: err.Error()}
	}
	if req.Size < 0 || req.Size > mesh.MaxFile {
		return nil, &bus.APIError{
			Code: 413, Reason: "file_too_large", Detail: fmt.Sprintf("the file has %d bytes, the limit is %d", req.Size, mesh.MaxFile),
			Data: map[string]any{"limit": mesh.MaxFile, "size": req.Size},
		}
	}
	if !m.online() {
		return nil, m.down()
	}
	s := &sharing{req: req}
	if req.To != "" {
		if s.to, err = m.recipient(ctx, req.To); err != nil {
			return nil, err
		}
	}
	t := &transfer{actor: c.Actor, mesh: m, share: s, size: req.Size}
	if err := d.transfers.add(t); err != nil {
		return nil, err
	}
	return bus.FileTransfer{ID: t.id}, nil
}

func (d *Daemon) fileChunk(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.FileChunk
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	t, release, err := d.transfers.use(c.Actor, req.ID)
	if err != nil {
		return nil, err
	}
	defer release()
	if t.share == nil {
		return nil, errWrongWay
	}
	return nil, t.append(req.Offset, req.Data)
}

var errWrongWay = &bus.APIError{Code: 400, Reason: "wrong_way", Detail: "this transfer goes the other way"}

// commitFile encrypts and uploads. It may be asked again when it failed: nothing is on the broker then, or a file that nobody was told of.
func (d *Daemon) commitFile(ctx context.Context, c *bus.Call) (any, error) {
	t, release, err := d.transferOf(c)
	if err != nil {
		return nil, err
	}
	defer release()
	if t.share == nil {
		return nil, errWrongWay
	}
	ctx, cancel := context.WithTimeout(ctx, transferLimit)
	defer cancel()
	ctx, done, err := d.transfers.working(ctx, t)
	if err != nil {
		return nil, err
	}
	defer done()
	m, s := t.mesh, t.share
	to := []recipient{{key: m.joined.Pubkey}}
	if s.to != nil {
		to = append(to, *s.to)
	} else {
		members, err := m.memberCandidates(ctx)
		if err != nil {
			return nil, err
		}
		for _, who := range members {
			to = append(to, recipient{who.Key, printable(who.Name)})
		}
	}
	to = distinct(to)
	plain, err := t.whole()
	if err != nil {
		return nil, err
	}
	body, key, err := mesh.SealFile(plain, d.opt.Rand)
	if err != nil {
		return nil, fmt.Errorf("encrypt file: %w", err)
	}
	out := bus.FileShared{Name: s.req.Name, Size: t.size}
	if s.to != nil {
		out.ToKey, out.ToName = s.to.key, s.to.name
	}
	keys := make([]wire.FileKey, 0, len(to))
	for _, r := range to {
		sealed, err := key.SealFor(r.key, d.opt.Rand)
		if err != nil { // a weak key: that member can have nothing that is secret
			out.Missed = append(out.Missed, r.String())
			continue
		}
		keys = append(keys, wire.FileKey{PeerPubkey: r.key, SealedKey: sealed})
	}
	first := keys[:min(len(keys), keysPerUpload)]
	if out.FileID, err = m.upload(ctx, t, body, first); err != nil {
		return nil, err
	}
	out.Recipients = len(first)
	for _, k := range keys[len(first):] {
		if err := m.grantFile(ctx, out.FileID, k); err != nil {
			out.Missed = append(out.Missed, k.PeerPubkey)
			continue
		}
		out.Recipients++
	}
	return out, nil
}

// upload posts a sealed file and returns its id.
func (m *meshRun) upload(ctx context.Context, t *transfer, body []byte, keys []wire.FileKey) (string, error) {
	s := t.share
	sealed, err := json.Marshal(keys)
	if err != nil {
		return "", fmt.Errorf("encode keys: %w", err)
	}
	h := http.Header{}
	h.Set("Expect", "100-continue")
	h.Set("Content-Type", "application/octet-stream")
	h.Set(wire.HeaderMeshID, m.joined.MeshID)
	h.Set(wire.HeaderMemberID, m.joined.MemberID)
	h.Set(wire.HeaderFileName, s.req.Name)
	h.Set(wire.HeaderEncrypted, "true")
	h.Set(wire.HeaderOwnerPubkey, m.joined.Pubkey)
	h.Set(wire.HeaderFileKeys, string(sealed))
	if len(s.req.Tags) > 0 {
		tags, err := json.Marshal(s.req.Tags)
		if err != nil {
			return "", fmt.Errorf("encode tags: %w", err)
		}
		h.Set(wire.HeaderTags, string(tags))
	}
	if s.req.Ephemeral {
		h.Set(wire.HeaderPersistent, "false")
	}
	if s.to != nil {
		h.Set(wire.HeaderTargetSpec, s.to.key)
	}
	sum := sha256.Sum256(body)
	t.done.Store(0)
	t.total.Store(int64(len(body)))
	res, err := m.links.HTTP(ctx, bridge.Request{
		Method: http.MethodPost, Target: "/upload", Header: h, Body: &counted{bytes.NewReader(body), &t.done}, Size: int64(len(body)), SHA256: hex.EncodeToString(sum[:]),
	})
	if err != nil {
		return "", m.transferError(ctx, "upload", err)
	}
	defer res.Body.Close()
	var reply wire.UploadReply
	data, err := io.ReadAll(io.LimitReader(res.Body, maxUploadReply))
	if err != nil {
		return "", m.transferError(ctx, "upload", err)
	}
	if json.Unmarshal(data, &reply) != nil || res.StatusCode != http.StatusOK || !reply.OK || reply.FileID == "" || len(reply.FileID) > wire.MaxIDBytes {
		return "", transferRefused("did not take the file", res.StatusCode, reply.Error)
	}
	return reply.FileID, nil
}

// counted counts what was read.
type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// transferError tells why bytes did not get through.
func (m *meshRun) transferError(ctx context.Context, what string, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &bus.APIError{Code: 504, Reason: "broker_timeout", Detail: fmt.Sprintf("the %s took longer than %s", what, transferLimit)}
	case ctx.Err() != nil:
		return errAborted
	}
	return &bus.APIError{Code: 503, Reason: "transfer_failed", Detail: fmt.Sprintf("the %s broke off: %v", what, err)}
}

func transferRefused(what string, status int, reason string) error {
	if reason = printable(reason); reason != "" {
		reason = ": " + reason
	}
	code := 502
	switch status {
	case http.StatusForbidden:
		code = 403
	case http.StatusNotFound:
		code = 404
	case http.StatusRequestEntityTooLarge:
		code = 413
	}
	return &bus.APIError{Code: code, Reason: "broker_refused", Detail: fmt.Sprintf("the broker %s%s (HTTP %d)", what, reason, status)}
}

// grantFile hands a sealed key to the broker.
func (m *meshRun) grantFile(ctx context.Context, id string, k wire.FileKey) error {
	fields, err := json.Marshal(wire.GrantFileAccess{FileID: id, FileKey: k})
	if err != nil {
		return fmt.Errorf("encode grant: %w", err)
	}
	_, err = m.call(ctx, m.links.Member(), wire.TypeGrantFileAccess, fields)
	return err
}

// transferOf finds the transfer that a request names.
func (d *Daemon) transferOf(c *bus.Call) (*transfer, func(), error) {
	var req bus.FileTransfer
	if err := c.Decode(&req); err != nil {
		return nil, nil, err
	}
	return d.transfers.use(c.Actor, req.ID)
}

func (d *Daemon) fileProgress(_ context.Context, c *bus.Call) (any, error) {
	t, release, err := d.transferOf(c)
	if err != nil {
		return nil, err
	}
	defer release()
	return bus.FileProgress{Done: t.done.Load(), Total: t.total.Load()}, nil
}

func (d *Daemon) closeFile(_ context.Context, c *bus.Call) (any, error) {
	t, release, err := d.transferOf(c)
	if err != nil {
		return nil, err
	}
	defer release()
	d.transfers.close(t)
	return nil, nil
}
