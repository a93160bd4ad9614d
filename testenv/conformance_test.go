package testenv_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"claudemesh/testenv"
	"claudemesh/testenv/conformance"
)

// core are the message types that a client of the reference's releases 1.0 to 1.30.1 may send to any broker.
var core = strings.Fields(`
	hello session_hello send client_ack message_status
	list_peers set_status set_summary set_visible set_profile set_stats join_group leave_group
	topic_create topic_list topic_join topic_leave topic_members topic_history topic_mark_read
	apikey_create apikey_list apikey_revoke
	set_state get_state list_state remember recall forget share_skill get_skill list_skills remove_skill
	get_file list_files file_status grant_file_access delete_file
	vault_set vault_list vault_delete vault_get watch unwatch watch_list create_webhook list_webhooks delete_webhook
	schedule list_scheduled cancel_scheduled
	mcp_list mcp_call mcp_deploy mcp_undeploy mcp_schema mcp_catalog`)

// A standalone broker in a process of its own answers every core type as measured, or better; it never shares a defect that the check knows of.
func TestConformance(t *testing.T) {
	b := testenv.NewBrokerProcess(t)
	token, err := os.ReadFile(b.AdminTokenFile())
	if err != nil {
		t.Fatal(err)
	}
	// Where the reference has a runner that starts other people's programs beside the broker, this broker has none.
	unsupported := []string{"mcp_deploy"}
	drove := map[string]bool{}
	cfg := conformance.Config{URL: b.URL(), AdminToken: string(token), Quiet: 2 * time.Second}
	_, err = conformance.Run(t.Context(), cfg, func(r conformance.Result) {
		for _, typ := range r.Drove {
			drove[typ] = true
		}
		fine := r.Verdict == conformance.Same || r.Verdict == conformance.Corrected || r.Verdict == conformance.Unsupported && slices.Contains(unsupported, r.Type)
		if !fine {
			t.Errorf("%s: %s: %s (%d) %s", r.Type, r.Check, r.Verdict, r.Defect, r.Detail)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range core {
		if !drove[typ] {
			t.Errorf("%s was not asked", typ)
		}
	}
}
