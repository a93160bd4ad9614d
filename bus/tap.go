package bus

import (
	"encoding/hex"
	"fmt"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// A tap lives in an account of its own. In the account BUS it could aim the reply of a permitted question ($JS.API.STREAM.MSG.GET, $SRV.INFO) at
// mesh.x.msg.session.y, and the server or the daemon would publish the answer there: the reply subject of a request is never checked. Across an
// account boundary the server replaces the reply, so the answer comes back into the tap's account wherever the tap aims it. One account for each tap, so that
// one tap cannot show another one a forged message either.

// tapStreams are what a tap hears: requests, messages, events and receipts of every mesh, and the advisories of JetStream. Not the replies: an
// invite or an API key travels in one. Not the daemon's operations but the ones listed: the others may carry an invite or a path to a secret.
func tapStreams() []string {
	s := []string{"mesh.>", "$JS.EVENT.>"}
	for _, op := range []string{
		OpVersion, OpStatus, OpShutdown, OpMeshList, OpSessionStart, OpSessionEnd, OpSessionList, OpSessionMe,
		OpInboxList, OpInboxSeen, OpInboxPending, OpInboxSurfaced, OpOutboxList, OpOutboxGet, OpOutboxRequeue,
	} {
		s = append(s, AnyDaemonOp(op))
	}
	return s
}

// tapRequests are what a tap may ask: the questions of `nats stream ls`, `nats stream get`, `nats consumer ls` and `nats micro`. None of them changes anything.
func tapRequests() []string {
	return append([]string{
		"$JS.API.INFO",
		"$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*",
		"$JS.API.CONSUMER.NAMES.*", "$JS.API.CONSUMER.LIST.*", "$JS.API.CONSUMER.INFO.*.*",
		"$JS.API.DIRECT.GET.*", "$JS.API.DIRECT.GET.*.>",
	}, monitorSubjects...)
}

// exportToTaps opens the account BUS for import by taps' accounts.
func exportToTaps(bus *natsserver.Account) error {
	for _, s := range tapStreams() {
		if err := bus.AddStreamExport(s, nil); err != nil {
			return fmt.Errorf("export %s: %w", s, err)
		}
	}
	for _, s := range tapRequests() {
		if err := bus.AddServiceExportWithResponse(s, natsserver.Streamed, nil); err != nil {
			return fmt.Errorf("export %s: %w", s, err)
		}
	}
	return nil
}

// tapAccount finds or makes the account of the tap with this token hash. The server has no way to remove an account before it ends; an empty one costs
// a few kilobytes.
func tapAccount(s *natsserver.Server, bus *natsserver.Account, hash Hash) (*natsserver.Account, error) {
	acc, isNew := s.LookupOrRegisterAccount("TAP-" + hex.EncodeToString(hash[:8]))
	if !isNew {
		return acc, nil
	}
	for _, sub := range tapStreams() {
		if err := acc.AddStreamImport(bus, sub, ""); err != nil {
			return nil, fmt.Errorf("import %s: %w", sub, err)
		}
	}
	for _, sub := range tapRequests() {
		if err := acc.AddServiceImport(bus, sub, sub); err != nil {
			return nil, fmt.Errorf("import %s: %w", sub, err)
		}
	}
	return acc, nil
}
