package broker

import (
	"encoding/base64"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Every stream, subject and key name of the store is spelled here.
const (
	acceptStream = "CM_ACCEPT"
	mailStream   = "CM_MAIL"
	rcptStream   = "CM_RECEIPT"
	metaBucket   = "CM_META"
	dataBucket   = "CM_DATA"
	filesBucket  = "CM_FILES"
	filesStream  = "OBJ_" + filesBucket
	topicStream  = "CM_TOPIC"

	// A bucket is a stream, and its keys are subjects.
	dataStream = "KV_" + dataBucket
	dataPrefix = "$KV." + dataBucket + "."
	// kvOperation is the header of an entry that says that its key was deleted.
	kvOperation = "KV-Operation"

	livePrefix = "live."
)

// acceptSubject holds the one message with that id.
func acceptSubject(meshID, messageID string) string { return "accept." + meshID + "." + messageID }

// mailSubject is the mailbox of a key; receiptSubject is the receipts of a member.
func mailSubject(meshID, key string) string { return mailPrefix + meshID + "." + key }

const (
	mailPrefix    = "mbx."
	receiptPrefix = "rcp."
)

func receiptSubject(meshID, key string) string { return receiptPrefix + meshID + "." + key }

// historySubject is the posts of a topic.
func historySubject(meshID, topicID string) string { return "hist." + meshID + "." + topicID }

// Families of records in CM_DATA about topics: TOPIC.MESHID.TOPICID is the topic, MEMBER.MESHID.TOPICID.KEY who belongs to it, KEY.MESHID.TOPICID.GENERATION
// its key of a generation, sealed for each member.
const (
	topicFamily       = "topic"
	topicMemberFamily = "topic-member"
	topicKeyFamily    = "topic-key"
)

// Keys of the bucket.
const (
	idSecretKey = "id-secret"
	cursorKey   = "fanout-cursor"
	gonePrefix  = "gone-" // not "gone.": the purge of a mesh takes every key whose second token is its id
)

func meshKey(meshID string) string               { return "mesh." + meshID }
func memberKey(meshID, pubkey string) string     { return "member." + meshID + "." + pubkey }
func stateKey(meshID, pubkey string) string      { return "state." + meshID + "." + pubkey }
func sessionKeyKey(meshID, pubkey string) string { return "session." + meshID + "." + pubkey }
func inviteKey(meshID, name string) string       { return "invite." + meshID + "." + name }
func goneKey(meshID string) string               { return gonePrefix + meshID }

// splitKey takes a bucket key apart: its kind and the one or two tokens after it.
func splitKey(key string) (kind, a, b string) {
	parts := strings.SplitN(key, ".", 3)
	parts = append(parts, "", "")
	return parts[0], parts[1], parts[2]
}

// acceptConfig refuses new messages when the stream is full: an accepted one is never dropped to make room.
func acceptConfig(l Limits) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: acceptStream, Description: "accepted messages", Subjects: []string{"accept.*.*"},
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
		MaxBytes: l.MaxStore / 100 * 50, MaxAge: l.Retention, AllowDirect: true, Duplicates: time.Second, AllowAtomicPublish: true,
	}
}

// mailConfig keeps references.
func mailConfig(l Limits) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: mailStream, Description: "mailboxes", Subjects: []string{"mbx.*.*"},
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
		MaxBytes: l.MaxStore / 100 * 15, MaxAge: l.Retention, AllowDirect: true, Duplicates: time.Second, AllowAtomicPublish: true,
		RePublish: &jetstream.RePublish{Source: ">", Destination: livePrefix + ">"},
	}
}

// receiptConfig keeps receipts, apart from the mail because they are not synced: a crash may cost the newest of them, and then a sender believes less
// than is true, never more. Synced, they would be most of what the disk does.
func receiptConfig(l Limits) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: rcptStream, Description: "receipts", Subjects: []string{receiptPrefix + "*.*"},
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, PersistMode: jetstream.AsyncPersistMode,
		MaxBytes: l.MaxStore / 100 * 5, MaxAge: l.Retention, AllowDirect: true, Duplicates: min(time.Hour, l.Retention),
		RePublish: &jetstream.RePublish{Source: ">", Destination: livePrefix + ">"},
	}
}

// topicConfig keeps the posts of topics, apart from the mail because they outlive it: as long as there is room. The oldest make way, of one topic beyond
// maxTopicHistory and of all together; a full history must not stop the fan-out that writes it.
func topicConfig(l Limits) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: topicStream, Description: "posts of topics", Subjects: []string{"hist.*.*"},
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, MaxMsgsPerSubject: maxTopicHistory,
		MaxBytes: l.MaxStore / 100 * 10, AllowDirect: true, Duplicates: time.Second, AllowAtomicPublish: true,
	}
}

func metaConfig(l Limits) jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket: metaBucket, Description: "meshes, members, invites, saved presence", History: 1, Storage: jetstream.FileStorage,
		MaxBytes: l.MaxStore / 100 * 5, MaxValueSize: 64 << 10,
	}
}

// dataConfig keeps what members store for one another: state, memories, skills, and everything else that is small and not mail.
func dataConfig(l Limits) jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket: dataBucket, Description: "shared state, memories, skills and other small records", History: 1, Storage: jetstream.FileStorage,
		MaxBytes: l.MaxStore / 100 * 10, MaxValueSize: maxRecordBytes,
	}
}

// filesConfig keeps the bytes of files. It refuses new ones when it is full; the broker itself removes those that are to expire.
func filesConfig(l Limits) jetstream.ObjectStoreConfig {
	return jetstream.ObjectStoreConfig{Bucket: filesBucket, Description: "bytes of shared files", Storage: jetstream.FileStorage, MaxBytes: l.MaxFiles}
}

// objectSubject holds the description of an object, chunkSubject its bytes: the format of NATS object stores (ADR-20).
func objectSubject(name string) string {
	return "$O." + filesBucket + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}

func chunkSubject(nuid string) string { return "$O." + filesBucket + ".C." + nuid }
