package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Fetching a file: it is decrypted here, and handed out only when all of it is there and is what was encrypted.

// fetching is a file to be had.
type fetching struct {
	url  wire.FileURL
	id   string
	ours bool // the broker serves signed downloads
}

// fileURL asks the broker for a file, over the link of whoever wants it.
func (m *meshRun) fileURL(ctx context.Context, link *bridge.Link, id string) (got wire.FileURL, err error) {
	ref := wire.FileRef{FileID: id}
	if err := ref.Validate(); err != nil {
		return got, &bus.APIError{Code: 400, Reason: "bad_file", Detail: err.Error()}
	}
	fields, err := json.Marshal(ref)
	if err != nil {
		return got, fmt.Errorf("encode file id: %w", err)
	}
	reply, err := m.call(ctx, link, wire.TypeGetFile, fields)
	if err != nil {
		return got, err
	}
	if err := wire.Decode(reply, &got); err != nil {
		return got, fmt.Errorf("get file: %w", err)
	}
	return got, nil
}

func (d *Daemon) openFile(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.FileOpen
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	m, err := d.permit(ctx, c.Actor, mesh.CapFiles, req.Mesh)
	if err != nil {
		return nil, err
	}
	f := &fetching{id: req.FileID, ours: len(m.links.Member().State().Capabilities) > 0}
	if f.url, err = m.fileURL(ctx, d.linkOf(ctx, c.Actor, m), req.FileID); err != nil {
		return nil, err
	}
	t := &transfer{actor: c.Actor, mesh: m, fetch: f}
	if err := d.transfers.add(t); err != nil {
		return nil, err
	}
	return bus.FileOpened{ID: t.id, Name: f.url.Name, Encrypted: f.url.Encrypted}, nil
}

func (d *Daemon) fetchFile(ctx context.Context, c *bus.Call) (any, error) {
	t, release, err := d.transferOf(c)
	if err != nil {
		return nil, err
	}
	defer release()
	if t.fetch == nil {
		return nil, errWrongWay
	}
	ctx, cancel := context.WithTimeout(ctx, transferLimit)
	defer cancel()
	ctx, done, err := d.transfers.working(ctx, t)
	if err != nil {
		return nil, err
	}
	defer done()
	data, err := t.mesh.download(ctx, t)
	if err != nil {
		return nil, err
	}
	if t.fetch.url.Encrypted {
		key, err := mesh.OpenKey(t.mesh.member, t.fetch.url.SealedKey)
		if err != nil {
			return nil, errNoKey
		}
		if data, err = mesh.OpenFile(data, key); err != nil {
			return nil, &bus.APIError{Code: 409, Reason: "undecryptable", Detail: "the file is damaged, or was not encrypted with the key that came with it"}
		}
	}
	if err := t.fill(data); err != nil {
		return nil, err
	}
	return bus.FileFetched{Size: int64(len(data))}, nil
}

var errNoKey = &bus.APIError{Code: 403, Reason: "no_file_key", Detail: "the file's key was not sealed for this member; its owner can do that with: claudemesh file grant"}

// download reads the stored body, at most mesh.MaxSealedFile bytes of it.
func (m *meshRun) download(ctx context.Context, t *transfer) ([]byte, error) {
	var res *http.Response
	var err error
	if t.fetch.ours {
		// The same way as everything else, whether or not the broker's public address can be reached from here.
		target := "/download/" + url.PathEscape(t.fetch.id) + "?mesh=" + url.QueryEscape(m.joined.MeshID)
		res, err = m.links.HTTP(ctx, bridge.Request{Method: http.MethodGet, Target: target})
	} else {
		res, err = m.links.Fetch(ctx, t.fetch.url.URL)
	}
	if errors.Is(err, bridge.ErrPrivateAddress) {
		return nil, &bus.APIError{Code: 502, Reason: "bad_file_url", Detail: err.Error()}
	}
	if err != nil {
		return nil, m.transferError(ctx, "download", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		var reply wire.UploadReply
		text, err := io.ReadAll(io.LimitReader(res.Body, maxUploadReply))
		if err != nil || json.Unmarshal(text, &reply) != nil {
			reply.Error = ""
		}
		return nil, transferRefused("did not give the file", res.StatusCode, reply.Error)
	}
	t.done.Store(0)
	t.total.Store(max(res.ContentLength, 0))
	if res.ContentLength > mesh.MaxSealedFile {
		return nil, errOverlong
	}
	var data bytes.Buffer
	data.Grow(int(max(res.ContentLength, 0)) + bytes.MinRead)
	if _, err := data.ReadFrom(&counted{io.LimitReader(res.Body, mesh.MaxSealedFile+1), &t.done}); err != nil {
		return nil, m.transferError(ctx, "download", err)
	}
	if data.Len() > mesh.MaxSealedFile {
		return nil, errOverlong
	}
	return data.Bytes(), nil
}

var errOverlong = &bus.APIError{Code: 502, Reason: "broker_refused", Detail: fmt.Sprintf("the broker sends more than the %d bytes that a file may have", mesh.MaxSealedFile)}

func (d *Daemon) readFile(_ context.Context, c *bus.Call) (any, error) {
	var req bus.FileRead
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	t, release, err := d.transfers.use(c.Actor, req.ID)
	if err != nil {
		return nil, err
	}
	defer release()
	if t.fetch == nil {
		return nil, errWrongWay
	}
	data, err := t.read(req.Offset)
	if err != nil {
		return nil, err
	}
	return bus.FileData{Data: data}, nil
}

// grant seals the key of a file of ours for one more member.
func (d *Daemon) grant(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.FileGrant
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	m, err := d.permit(ctx, c.Actor, mesh.CapFiles, req.Mesh)
	if err != nil {
		return nil, err
	}
	to, err := m.recipient(ctx, req.To)
	if err != nil {
		return nil, err
	}
	got, err := m.fileURL(ctx, d.linkOf(ctx, c.Actor, m), req.FileID)
	if err != nil {
		return nil, err
	}
	if !got.Encrypted {
		return nil, &bus.APIError{Code: 409, Reason: "not_encrypted", Detail: "this file is not encrypted: there is no key to hand on"}
	}
	key, err := mesh.OpenKey(m.member, got.SealedKey)
	if err != nil {
		return nil, errNoKey
	}
	sealed, err := key.SealFor(to.key, d.opt.Rand)
	if err != nil {
		return nil, &bus.APIError{Code: 409, Reason: "weak_key", Detail: "nothing can be sealed for that member's key: " + err.Error()}
	}
	if err := m.grantFile(ctx, req.FileID, wire.FileKey{PeerPubkey: to.key, SealedKey: sealed}); err != nil {
		return nil, err
	}
	return bus.FileGranted{FileID: req.FileID, ToKey: to.key, ToName: to.name}, nil
}
