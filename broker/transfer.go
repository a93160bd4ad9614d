package broker

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// The HTTP routes of files. A transfer is given time by what it has moved, not by the server's general limits: a slow line is served, one that stands still
// or trickles is not.
const (
	routeUpload   = "POST /upload"
	routeDownload = "GET /download/{fileId}"
	routeTicket   = "GET /download/{fileId}/{ticket}"
)

const (
	transferGrace  = 30 * time.Second // before the pace counts, and the longest pause
	transferPace   = 16 << 10         // bytes per second at least, on average
	answerTime     = 30 * time.Second // for the answer to an upload
	slotWait       = 10 * time.Second // for a free slot
	readsPerUpload = 8                // downloads at one time, for each upload that may run
)

// longestTransfer is what the largest body takes at the slowest pace.
const longestTransfer = transferGrace + mesh.MaxSealedFile/transferPace*time.Second

// pace moves the deadlines of one connection along with a transfer.
type pace struct {
	begun time.Time
	moved int64
	set   func(time.Time) error
}

func newPace(set func(time.Time) error) *pace { return &pace{begun: time.Now(), set: set} }

// next gives the next step its deadline. A transport without deadlines has none to move.
func (p *pace) next() {
	until := p.begun.Add(transferGrace + time.Duration(p.moved/transferPace)*time.Second)
	if stall := time.Now().Add(transferGrace); stall.Before(until) {
		until = stall
	}
	_ = p.set(until)
}

type pacedReader struct {
	io.ReadCloser
	pace *pace
}

func (r pacedReader) Read(b []byte) (int, error) {
	r.pace.next()
	n, err := r.ReadCloser.Read(b)
	r.pace.moved += int64(n)
	return n, err
}

type pacedWriter struct {
	w    io.Writer
	pace *pace
}

func (w pacedWriter) Write(b []byte) (int, error) {
	w.pace.next()
	n, err := w.w.Write(b)
	w.pace.moved += int64(n)
	return n, err
}

// begin takes a slot for a transfer, waiting a moment for one. end gives it back; ctx ends with the broker.
func (f *files) begin(r *http.Request, slots chan struct{}) (ctx context.Context, end func(), no *httpRefusal) {
	if !f.enter() {
		return nil, nil, &httpRefusal{http.StatusServiceUnavailable, wire.CodeUnavailable}
	}
	wait, stop := context.WithTimeout(r.Context(), slotWait)
	defer stop()
	select {
	case slots <- struct{}{}:
	case <-wait.Done():
		f.leave()
		return nil, nil, &httpRefusal{http.StatusServiceUnavailable, "busy"}
	case <-f.ctx.Done():
		f.leave()
		return nil, nil, &httpRefusal{http.StatusServiceUnavailable, wire.CodeUnavailable}
	}
	ctx, cancel := context.WithTimeout(f.ctx, longestTransfer)
	return ctx, func() { cancel(); <-slots; f.leave() }, nil
}

func refuseHTTP(w http.ResponseWriter, no *httpRefusal) {
	answer(w, no.status, wire.UploadReply{Error: no.code})
}

// upload takes a file. It exists from the moment its record is stored, which is after the last byte was there and had the hash that was signed.
func (b *Broker) upload(w http.ResponseWriter, r *http.Request, who httpCaller) {
	rec, keys, no := readUploadHeader(r.Header, who)
	switch {
	case no != nil:
	case r.ContentLength == 0:
		no = &httpRefusal{http.StatusBadRequest, "empty body"}
	case r.ContentLength > mesh.MaxSealedFile:
		no = &httpRefusal{http.StatusRequestEntityTooLarge, errFileTooLarge}
	}
	if no != nil {
		refuseHTTP(w, no)
		return
	}
	ctx, end, no := b.files.begin(r, b.files.uploads)
	if no != nil {
		refuseHTTP(w, no)
		return
	}
	defer end()
	rc := http.NewResponseController(w)
	// A broker that stops does not wait for the sender.
	stop := context.AfterFunc(ctx, func() { _ = rc.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	body := http.MaxBytesReader(w, pacedReader{r.Body, newPace(rc.SetReadDeadline)}, mesh.MaxSealedFile)
	err := b.storeFile(ctx, who.mesh.rec.ID, rec, keys, checked(body, who.bodyHash))
	_ = rc.SetWriteDeadline(time.Now().Add(answerTime))
	if err != nil {
		refuseHTTP(w, b.uploadRefusal(err))
		return
	}
	answer(w, http.StatusOK, wire.UploadReply{OK: true, FileID: rec.ID})
}

const errFileTooLarge = "file too large (max 50MB)"

var (
	errEmptyFile  = errors.New("empty body")
	errFilesFull  = errors.New("too many files in this mesh")
	errNoFileRoom = errors.New("no room for more files")
)

// storeFile stores bytes, keys and record, in this order, and fills in the record.
func (b *Broker) storeFile(ctx context.Context, meshID string, rec *fileRecord, keys []wire.FileKey, body io.Reader) (err error) {
	all, err := b.store.recordKeys(ctx, familyFile, meshID)
	switch {
	case err != nil:
		return err
	case len(all) >= b.lim.FilesPerMesh:
		return errFilesFull
	}
	if rec.ID, err = newID(b.cfg.Rand); err != nil {
		return err
	}
	if rec.Size, err = b.files.put(ctx, rec.ID, body); err != nil {
		return err
	}
	defer func() {
		if err != nil { // what cannot be removed now is removed by the next start
			err = errors.Join(err, b.files.remove(context.WithoutCancel(ctx), meshID, rec.ID))
		}
	}()
	if rec.Size == 0 {
		return errEmptyFile
	}
	for _, k := range keys {
		if err := b.store.putRecord(ctx, recordKey(familyFileKey, meshID, rec.ID, k.PeerPubkey), fileKeyRecord{k.SealedKey}); err != nil {
			return err
		}
	}
	rec.Mesh, rec.UploadedAt = meshID, b.now().UnixMilli()
	if rec.Expires != 0 {
		rec.Expires = b.now().Add(b.lim.EphemeralFiles).UnixMilli()
	}
	return b.store.createRecord(ctx, recordKey(familyFile, meshID, rec.ID), rec)
}

// storeFull is JetStream's error code for a stream at its limit (and for a disk that is).
const storeFull = 10077

func (b *Broker) uploadRefusal(err error) *httpRefusal {
	var tooLong *http.MaxBytesError
	var api *jetstream.APIError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &tooLong):
		return &httpRefusal{http.StatusRequestEntityTooLarge, errFileTooLarge}
	case errors.Is(err, errBodyHash):
		return &httpRefusal{http.StatusUnauthorized, wire.CodeBadSignature}
	case errors.Is(err, errEmptyFile):
		return &httpRefusal{http.StatusBadRequest, errEmptyFile.Error()}
	case errors.Is(err, errFilesFull):
		return &httpRefusal{http.StatusInsufficientStorage, errFilesFull.Error()}
	case errors.As(err, &api) && api.ErrorCode == storeFull:
		return &httpRefusal{http.StatusInsufficientStorage, errNoFileRoom.Error()}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &timeout) && timeout.Timeout():
		return &httpRefusal{http.StatusBadRequest, "body not readable"}
	}
	b.log.Error("file not stored", "err", err)
	return &httpRefusal{http.StatusInternalServerError, wire.CodeInternal}
}

// download serves a file to a member that signed the request.
func (b *Broker) download(w http.ResponseWriter, r *http.Request, who httpCaller) {
	if m := r.URL.Query().Get("mesh"); m != "" && m != who.mesh.rec.ID {
		refuseHTTP(w, &httpRefusal{http.StatusForbidden, wire.CodeForbidden})
		return
	}
	v, id := fileViewer{mesh: who.mesh, member: who.member}, r.PathValue("fileId")
	b.sendFile(w, r, v, id, func(ctx context.Context) error {
		// Usually it comes right after a get_file, which was noted; without one it must not go unnoticed.
		return b.noteAccess(ctx, v, id, ticketLife)
	})
}

// sendFile serves a file to somebody who may have it, after note, which may be nil.
func (b *Broker) sendFile(w http.ResponseWriter, r *http.Request, v fileViewer, id string, note func(context.Context) error) {
	ctx, end, no := b.files.begin(r, b.files.reads)
	if no != nil {
		refuseHTTP(w, no)
		return
	}
	defer end()
	rec, _, err := b.fileFor(ctx, v, id)
	if err == nil && note != nil {
		err = note(ctx)
	}
	var refusal *refusal
	switch {
	case errors.As(err, &refusal):
		status := http.StatusForbidden
		if refusal.code == wire.CodeNotFound {
			status = http.StatusNotFound
		}
		refuseHTTP(w, &httpRefusal{status, refusal.message})
		return
	case err != nil:
		b.log.Error("file not read", "err", err)
		refuseHTTP(w, &httpRefusal{http.StatusInternalServerError, wire.CodeInternal})
		return
	}
	h := w.Header()
	// Whatever it is, no browser is to run it.
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": rec.Name}))
	h.Set("Cache-Control", "private, max-age=60")
	h.Set("Content-Length", strconv.FormatInt(rec.Size, 10))
	rc := http.NewResponseController(w)
	stop := context.AfterFunc(ctx, func() { _ = rc.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	// A body that ends early is noticed by its length: nothing else can be said once it has begun.
	if err := b.files.copyTo(ctx, pacedWriter{w, newPace(rc.SetWriteDeadline)}, rec.ID); err != nil {
		b.log.Debug("file not sent", "err", err)
	}
}
