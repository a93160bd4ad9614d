package bus

// The payloads of the vault. A value is sealed and opened by the daemon, which holds the member's key; it travels in these requests and replies only, which no
// tap hears.

// Operations of the vault, the last token of daemon.<actor>.<op>. A limited session needs the capability "vault".
const (
	OpVaultSet = "vault-set"
	OpVaultGet = "vault-get"
)

// Broker operations of the vault that need no key.
const (
	CallVaultList   = "vault_list"
	CallVaultDelete = "vault_delete"
)

// VaultSet stores a value, replacing the one of that key.
type VaultSet struct {
	Mesh        string `json:"mesh"`
	Key         string `json:"key"`   // 1 to 256 bytes
	Value       []byte `json:"value"` // at most 128 KiB
	Type        string `json:"type"`  // env or file
	Mount       string `json:"mount,omitempty"`
	Description string `json:"description,omitempty"`
}

// VaultGet asks for a value. Errors: 404 no_entry, 409 undecryptable.
type VaultGet struct {
	Mesh string `json:"mesh"`
	Key  string `json:"key"`
}

// VaultValue answers it.
type VaultValue struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
	Type  string `json:"type"`
	Mount string `json:"mount,omitempty"`
	// Readable: an old client stored it, and the broker could read it all the time.
	Readable bool `json:"readable,omitempty"`
}
