package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/nats-io/nats.go/jetstream"
)

// The bytes of files lie in the object store CM_FILES, in its standard format: object name = file id. A file exists by its record and by nothing else: the
// record is written after the bytes and removed before them, so that a crash on the way leaves bytes nobody sees, which the next start removes.

// Families of records beside familyFile, which is file.MESH.ID: a sealed key is filekey.MESH.ID.PUBKEY, the accesses are fileseen.MESH.ID.
const (
	familyFileKey  = "filekey"
	familyFileSeen = "fileseen"
)

// fileRecord is a file. Target is "", "*" or the key of the one who may have it beside its owner. Times are Unix milliseconds; Expires 0 means never.
type fileRecord struct {
	ID          string   `json:"id"`
	Mesh        string   `json:"mesh"`
	Name        string   `json:"name"`
	Size        int64    `json:"size"`
	Tags        []string `json:"tags,omitempty"`
	UploadedBy  string   `json:"uploaded_by"` // member id
	UploaderKey string   `json:"uploader_key"`
	OwnerKey    string   `json:"owner_key,omitempty"`
	Target      string   `json:"target,omitempty"`
	Granted     []string `json:"granted,omitempty"` // keys that the owner let in later, when Target would keep them out
	Encrypted   bool     `json:"encrypted,omitempty"`
	UploadedAt  int64    `json:"uploaded_at"`
	Expires     int64    `json:"expires,omitempty"`
}

type fileKeyRecord struct {
	SealedKey string `json:"sealed_key"`
}

type fileSeenRecord struct {
	Accesses []fileAccess `json:"accesses"` // newest first
}

type fileAccess struct {
	Name   string `json:"name"`
	Member string `json:"member"` // public key
	At     int64  `json:"at"`
}

const (
	fileChunk  = 256 << 10 // bytes per message of the stream
	filesEvery = 10 * time.Minute
)

// files is the broker's file store.
type files struct {
	b       *Broker
	objects jetstream.ObjectStore
	stream  jetstream.Stream
	uploads chan struct{} // one slot each
	reads   chan struct{}
	tickets *lru.Cache[[32]byte, ticket]

	ctx     context.Context // ends when transfers are to stop
	cancel  context.CancelFunc
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// openFiles opens the object store and removes what an earlier process left half done.
func openFiles(ctx context.Context, b *Broker) (*files, error) {
	f := &files{b: b, uploads: make(chan struct{}, b.lim.Uploads), reads: make(chan struct{}, readsPerUpload*b.lim.Uploads)}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	var err error
	if f.tickets, err = lru.New[[32]byte, ticket](maxTickets); err != nil {
		return nil, fmt.Errorf("open files: %w", err)
	}
	if f.objects, err = b.store.js.CreateOrUpdateObjectStore(ctx, filesConfig(b.lim)); err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", filesBucket, err)
	}
	if f.stream, err = b.store.js.Stream(ctx, filesStream); err != nil {
		return nil, fmt.Errorf("open stream %s: %w", filesStream, err)
	}
	if err := f.clean(ctx); err != nil {
		return nil, fmt.Errorf("clean bucket %s: %w", filesBucket, err)
	}
	return f, nil
}

// enter counts a transfer in; leave must be called when it reports true.
func (f *files) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.running.Add(1)
	return true
}

func (f *files) leave() { f.running.Done() }

// close ends transfers, which leave nothing that counts, and waits for them.
func (f *files) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cancel()
	f.running.Wait()
}

// put stores a body under id and returns its length. When body fails nothing stays.
func (f *files) put(ctx context.Context, id string, body io.Reader) (int64, error) {
	info, err := f.objects.Put(ctx, jetstream.ObjectMeta{Name: id, Opts: &jetstream.ObjectMetaOptions{ChunkSize: fileChunk}}, wholeChunks{body})
	if err != nil {
		// The object store has removed its chunks, and may have written the description all the same. What cannot be removed now is removed by the next start.
		ctx, cancel := f.b.deadline()
		defer cancel()
		return 0, errors.Join(fmt.Errorf("store file: %w", err), f.drop(ctx, id))
	}
	return int64(info.Size), nil
}

// wholeChunks fills the buffer at every read, because the object store writes a message per read, however short that was.
type wholeChunks struct{ r io.Reader }

// Read is io.ReadFull, but tells the end of r from a body that broke off: for the latter r's own error is io.ErrUnexpectedEOF.
func (w wholeChunks) Read(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = w.r.Read(p[n:])
		n += m
	}
	return n, err
}

// copyTo writes the bytes of a file. It reads chunk by chunk on demand: a slow reader holds one of them in memory.
func (f *files) copyTo(ctx context.Context, w io.Writer, id string) error {
	info, err := f.objects.GetInfo(ctx, id)
	if err != nil {
		return fmt.Errorf("read file: %w", err)
	}
	subject, seq, left := chunkSubject(info.NUID), uint64(1), int64(info.Size)
	for left > 0 {
		chunk, err := f.stream.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(subject))
		if err != nil {
			return fmt.Errorf("read file: %w", err)
		}
		if _, err := w.Write(chunk.Data); err != nil {
			return fmt.Errorf("send file: %w", err)
		}
		seq, left = chunk.Sequence+1, left-int64(len(chunk.Data))
	}
	return nil
}

// drop removes the bytes of a file; the object store alone would keep a marker for ever.
func (f *files) drop(ctx context.Context, id string) error {
	if err := f.objects.Delete(ctx, id); err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return fmt.Errorf("remove file: %w", err)
	}
	if err := f.stream.Purge(ctx, jetstream.WithPurgeSubject(objectSubject(id))); err != nil {
		return fmt.Errorf("remove file: %w", err)
	}
	return nil
}

// remove deletes a file: first the record, from then on it does not exist.
func (f *files) remove(ctx context.Context, meshID, id string) error {
	s := f.b.store
	if err := s.deleteRecord(ctx, recordKey(familyFile, meshID, id)); err != nil {
		return err
	}
	keys, err := s.recordKeys(ctx, familyFileKey, meshID, id)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := s.deleteRecord(ctx, key); err != nil {
			return err
		}
	}
	if err := s.deleteRecord(ctx, recordKey(familyFileSeen, meshID, id)); err != nil {
		return err
	}
	return f.drop(ctx, id)
}

// sweepLoop removes expired files until ctx ends.
func (f *files) sweepLoop(ctx context.Context) {
	tick := f.b.clock.NewTicker(filesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.Chan():
		}
		if err := f.expire(ctx); err != nil && ctx.Err() == nil {
			f.b.log.Warn("expired files not removed", "err", err)
		}
	}
}

func (f *files) expire(ctx context.Context) error {
	all, err := listRecords[fileRecord](ctx, f.b.store, familyFile)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.Value.expired(f.b.now()) {
			if err := f.remove(ctx, r.Value.Mesh, r.Value.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *fileRecord) expired(now time.Time) bool {
	return r.Expires != 0 && now.UnixMilli() >= r.Expires
}

// clean removes expired files, what belongs to files that are gone, bytes without a record and chunks without an object. It runs before any transfer.
func (f *files) clean(ctx context.Context) error {
	if err := f.expire(ctx); err != nil {
		return err
	}
	s := f.b.store
	all, err := listRecords[fileRecord](ctx, s, familyFile)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, r := range all {
		known[r.Value.ID] = true
	}
	for _, family := range []string{familyFileKey, familyFileSeen} {
		rows, err := s.recordKeys(ctx, family)
		if err != nil {
			return err
		}
		for _, key := range rows {
			if !known[strings.Split(key, ".")[2]] {
				if err := s.deleteRecord(ctx, key); err != nil {
					return err
				}
			}
		}
	}
	objects, err := f.objects.List(ctx, jetstream.ListObjectsShowDeleted())
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		return fmt.Errorf("list files: %w", err)
	}
	whole := map[string]bool{}
	for _, o := range objects {
		if !known[o.Name] {
			if err := f.drop(ctx, o.Name); err != nil {
				return err
			}
		} else {
			whole[chunkSubject(o.NUID)] = true
		}
	}
	info, err := f.stream.Info(ctx, jetstream.WithSubjectFilter(chunkSubject(">")))
	if err != nil {
		return fmt.Errorf("list chunks: %w", err)
	}
	for subject := range info.State.Subjects {
		if !whole[subject] {
			if err := f.stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
				return fmt.Errorf("remove chunks: %w", err)
			}
		}
	}
	return nil
}
