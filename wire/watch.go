package wire

import (
	"fmt"
	"strings"
)

// URL watches: the broker fetches an address from time to time and tells when what it finds there changes.

// Frame types of watches.
const (
	TypeWatch           = "watch"
	TypeWatchAck        = "watch_ack"
	TypeUnwatch         = "unwatch"
	TypeWatchList       = "watch_list"
	TypeWatchListResult = "watch_list_result"
)

// EventWatchTriggered is the system event that carries a WatchTriggered.
const EventWatchTriggered = "watch_triggered"

// CodePrivateAddress refuses a watch of an address that is not on the public internet.
const CodePrivateAddress = "private_address"

// What of an answer a watch looks at.
const (
	WatchHash   = "hash"   // the first 16 hex digits of the body's SHA-256
	WatchJSON   = "json"   // the value at Extract, a dotted path of property names; the hash without one
	WatchStatus = "status" // the HTTP status code
)

// When a watch notifies. A prefix takes the value behind it.
const (
	NotifyChange   = "change"     // the value differs; "changed" means the same
	NotifyAlways   = "always"     // at every check but the first
	NotifyMatch    = "match:"     // the value becomes this
	NotifyNotMatch = "not_match:" // the value stops being this
)

// Limits of a watch.
const (
	MaxURLBytes       = 2048
	MaxWatchHeaders   = 16
	MaxWatchHeader    = 4096 // name and value of all headers together, in bytes
	MinWatchInterval  = 5    // seconds; a shorter one becomes this
	MaxWatchInterval  = 86400
	DefaultWatchEvery = 30
)

// Watch asks for URL to be fetched every Interval seconds.
type Watch struct {
	Type     string            `json:"type"`
	URL      string            `json:"url"`
	Mode     string            `json:"mode,omitempty"`
	Extract  string            `json:"extract,omitempty"`
	Interval float64           `json:"interval,omitempty"`
	NotifyOn string            `json:"notify_on,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"`
	Label    string            `json:"label,omitempty"`
	ReqID    string            `json:"_reqId,omitempty"`
}

// Validate checks values and sizes; which addresses and headers may be used is the broker's to judge.
func (w Watch) Validate() error {
	switch w.Mode {
	case "", WatchHash, WatchJSON, WatchStatus:
	default:
		return fmt.Errorf("%w: mode must be hash, json or status", ErrInvalid)
	}
	switch n := w.NotifyOn; {
	case n == "", n == NotifyChange, n == "changed", n == NotifyAlways, strings.HasPrefix(n, NotifyMatch), strings.HasPrefix(n, NotifyNotMatch):
	default:
		return fmt.Errorf("%w: notify_on must be change, always, match:VALUE or not_match:VALUE", ErrInvalid)
	}
	size := 0
	for k, v := range w.Headers {
		size += len(k) + len(v)
	}
	switch {
	case len(w.Headers) > MaxWatchHeaders || size > MaxWatchHeader:
		return fmt.Errorf("%w: more than %d headers, or %d bytes of them", ErrInvalid, MaxWatchHeaders, MaxWatchHeader)
	case !(w.Interval >= 0 && w.Interval <= MaxWatchInterval): // not a number, too
		return fmt.Errorf("%w: interval must be %d to %d seconds", ErrInvalid, MinWatchInterval, MaxWatchInterval)
	}
	return firstError(required("url", w.URL), tooLong("url", w.URL, MaxURLBytes), tooLong("extract", w.Extract, MaxIDBytes),
		tooLong("notify_on", w.NotifyOn, MaxTargetBytes), tooLong("label", w.Label, MaxNameBytes))
}

// WatchAck answers Watch, and Unwatch with Interval 0; of an unknown watch URL and Mode are empty.
type WatchAck struct {
	Type     string `json:"type"`
	WatchID  string `json:"watchId"`
	URL      string `json:"url"`
	Mode     string `json:"mode"`
	Interval int    `json:"interval"`
	ReqID    string `json:"_reqId,omitempty"`
}

// Unwatch ends a watch.
type Unwatch struct {
	Type    string `json:"type"`
	WatchID string `json:"watchId"`
	ReqID   string `json:"_reqId,omitempty"`
}

// Validate checks presence and length.
func (u Unwatch) Validate() error {
	return firstError(required("watchId", u.WatchID), tooLong("watchId", u.WatchID, MaxIDBytes))
}

// WatchInfo is one entry of WatchListResult. LastHash and LastValue are the same and empty before the first check. NotifyOn and Error (why the last check
// found nothing) are ours. Headers are never listed.
type WatchInfo struct {
	ID        string `json:"id"`
	URL       string `json:"url"`
	Mode      string `json:"mode"`
	Label     string `json:"label,omitempty"`
	Interval  int    `json:"interval"`
	NotifyOn  string `json:"notifyOn,omitempty"`
	LastHash  string `json:"lastHash"`
	LastValue string `json:"lastValue"`
	LastCheck string `json:"lastCheck,omitempty"`
	CreatedAt string `json:"createdAt"`
	Error     string `json:"error,omitempty"`
}

// WatchListResult answers watch_list: the member's watches, oldest first.
type WatchListResult struct {
	Type    string      `json:"type"`
	Watches []WatchInfo `json:"watches"`
	ReqID   string      `json:"_reqId,omitempty"`
}

// WatchTriggered is the eventData of a watch's result.
type WatchTriggered struct {
	WatchID  string `json:"watchId"`
	URL      string `json:"url"`
	Label    string `json:"label,omitempty"`
	Mode     string `json:"mode"`
	OldValue string `json:"oldValue"`
	NewValue string `json:"newValue"`
}
