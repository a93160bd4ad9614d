package bridge

import "claudemesh/wire"

// unanswered lists the operations to which a reference broker never replies, whatever the request holds.
func unanswered(op string) bool {
	switch op {
	case wire.TypeSetStatus, wire.TypeSetSummary, wire.TypeSetStats, wire.TypeJoinGroup, wire.TypeLeaveGroup,
		"topic_join", "topic_leave", "topic_mark_read", "set_state", "mcp_unregister", "mcp_call_response", "publish", "unsubscribe":
		return true
	}
	return false
}

// callable keeps Call to requests: a frame that opens a connection, carries a message or acknowledges one has its own way, with its own rules, and must not
// be reachable by naming it as an operation.
func callable(op string) bool {
	switch op {
	case wire.TypeHello, wire.TypeSessionHello, wire.TypeHelloAck, wire.TypeSend, wire.TypeAck, wire.TypePush, wire.TypeReceipt, wire.TypeClientAck, wire.TypeError:
		return false
	}
	if op == "" || len(op) > 64 || op[0] < 'a' || op[0] > 'z' {
		return false
	}
	for i := range len(op) {
		c := op[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_') {
			return false
		}
	}
	return true
}
