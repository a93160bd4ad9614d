package broker

import (
	"context"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/wire"
)

// Records of the families: JSON values in the bucket CM_DATA under FAMILY.MESHID.NAME, or FAMILY.MESHID.OWNER.NAME. A name of any characters becomes one
// token by recordName. Every record belongs to one mesh; nothing here reads across meshes.

const maxRecordBytes = 1 << 20 // one record, encoded

// Errors of the records.
var (
	errNoRecord     = errors.New("no such record")
	errRecordExists = errors.New("record exists already")
	errRecordMoved  = errors.New("record was changed meanwhile")
)

var nameCoding = base32.HexEncoding.WithPadding(base32.NoPadding)

// recordName makes one key token of any name, reversibly. Names are at most a few hundred bytes; the caller has checked that.
func recordName(name string) string { return nameCoding.EncodeToString([]byte(name)) }

// recordKey joins the tokens of a key.
func recordKey(tokens ...string) string { return strings.Join(tokens, ".") }

// record is a stored value and the revision to replace it by.
type record[T any] struct {
	Key      string
	Value    T
	Revision uint64
}

// getRecord reads one; errNoRecord when there is none.
func getRecord[T any](ctx context.Context, s *store, key string) (record[T], error) {
	r := record[T]{Key: key}
	e, err := s.data.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return r, errNoRecord
	}
	if err != nil {
		return r, fmt.Errorf("read record: %w", err)
	}
	if err := json.Unmarshal(e.Value(), &r.Value); err != nil {
		return r, fmt.Errorf("read record: %s: %w", key, err)
	}
	r.Revision = e.Revision()
	return r, nil
}

// putRecord stores v, whatever was there.
func (s *store) putRecord(ctx context.Context, key string, v any) error {
	data, err := encodeRecord(v)
	if err != nil {
		return err
	}
	if _, err := s.data.Put(ctx, key, data); err != nil {
		return fmt.Errorf("store record: %w", err)
	}
	return nil
}

// createRecord stores v if nothing is there; else errRecordExists.
func (s *store) createRecord(ctx context.Context, key string, v any) error {
	data, err := encodeRecord(v)
	if err != nil {
		return err
	}
	_, err = s.data.Create(ctx, key, data)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return errRecordExists
	}
	if err != nil {
		return fmt.Errorf("store record: %w", err)
	}
	return nil
}

// updateRecord stores v in place of that revision; else errRecordMoved.
func (s *store) updateRecord(ctx context.Context, key string, v any, revision uint64) error {
	data, err := encodeRecord(v)
	if err != nil {
		return err
	}
	_, err = s.data.Update(ctx, key, data, revision)
	if idTaken(err) {
		return errRecordMoved
	}
	if err != nil {
		return fmt.Errorf("store record: %w", err)
	}
	return nil
}

// deleteRecord removes one for good: nothing of its value stays in the store. Deleting what is not there is no error.
func (s *store) deleteRecord(ctx context.Context, key string) error {
	if err := s.data.Purge(ctx, key); err != nil {
		return fmt.Errorf("delete record: %w", err)
	}
	return nil
}

// listRecords reads all records under the tokens, in no particular order.
func listRecords[T any](ctx context.Context, s *store, tokens ...string) (all []record[T], err error) {
	w, err := s.data.Watch(ctx, recordKey(append(tokens, ">")...), jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	defer func() { err = errors.Join(err, w.Stop()) }()
	for {
		select {
		case e := <-w.Updates():
			if e == nil { // the end of what was there
				return all, nil
			}
			r := record[T]{Key: e.Key(), Revision: e.Revision()}
			if err := json.Unmarshal(e.Value(), &r.Value); err != nil {
				return nil, fmt.Errorf("list records: %s: %w", e.Key(), err)
			}
			all = append(all, r)
		case <-ctx.Done():
			return nil, fmt.Errorf("list records: %w", ctx.Err())
		}
	}
}

func encodeRecord(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return data, nil
}

// storeFailed answers a request that the store could not serve: the cause goes to the log, not to the client.
func (c *conn) storeFailed(reqID, op string, err error) {
	c.log.Error("request not served", "op", op, "err", err)
	c.fail(reqID, wire.CodeUnavailable, "the store does not answer; nothing was changed that was not confirmed")
}
