package wire

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The vault: a member's own secrets, sealed before they come here. The fields of this family are in snake case.

// Frame types of the vault.
const (
	TypeVaultSet        = "vault_set"
	TypeVaultGet        = "vault_get"
	TypeVaultList       = "vault_list"
	TypeVaultDelete     = "vault_delete"
	TypeVaultAck        = "vault_ack"
	TypeVaultListResult = "vault_list_result"
	TypeVaultGetResult  = "vault_get_result"
)

// CodeVault is the code of every vault request that fails for a reason of its own.
const CodeVault = "vault_error"

// Limits of the vault.
const (
	MaxVaultKeyBytes  = 256
	MaxVaultBoxBytes  = 256 << 10 // of the ciphertext, in base64
	MaxVaultTextBytes = 1024      // mount path and description, each
	MaxVaultKeys      = 64        // of one vault_get
	maxSealedText     = 512       // a nonce or a sealed key, in base64
)

// Kinds of a vault entry: a variable of the environment, or a file.
const (
	VaultEnv  = "env"
	VaultFile = "file"
)

// Actions of a vault_ack.
const (
	VaultStored   = "stored"
	VaultDeleted  = "deleted"
	VaultNotFound = "not_found"
)

// VaultSet stores an entry, replacing the one of that key.
type VaultSet struct {
	Type        string  `json:"type"`
	Key         string  `json:"key"`
	Ciphertext  string  `json:"ciphertext"`
	Nonce       string  `json:"nonce"`
	SealedKey   string  `json:"sealed_key"`
	EntryType   string  `json:"entry_type"`
	MountPath   *string `json:"mount_path,omitempty"`
	Description *string `json:"description,omitempty"`
	ReqID       string  `json:"_reqId,omitempty"`
}

// Validate checks presence and lengths; what is sealed is opaque.
func (f VaultSet) Validate() error {
	if f.EntryType != VaultEnv && f.EntryType != VaultFile {
		return fmt.Errorf("%w: entry_type must be env or file", ErrInvalid)
	}
	return firstError(ValidVaultKey(f.Key), required("ciphertext", f.Ciphertext), required("nonce", f.Nonce), required("sealed_key", f.SealedKey),
		tooLong("ciphertext", f.Ciphertext, MaxVaultBoxBytes), tooLong("nonce", f.Nonce, maxSealedText), tooLong("sealed_key", f.SealedKey, maxSealedText),
		text("mount_path", f.MountPath), text("description", f.Description))
}

func text(field string, s *string) error {
	if s == nil {
		return nil
	}
	return tooLong(field, *s, MaxVaultTextBytes)
}

// ValidVaultKey reports what is wrong with the name of an entry: it has 1 to 256 bytes of UTF-8 without control characters.
func ValidVaultKey(key string) error {
	if !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl) {
		return fmt.Errorf("%w: key is not plain text", ErrInvalid)
	}
	return firstError(required("key", key), tooLong("key", key, MaxVaultKeyBytes))
}

// VaultKey is the request vault_delete.
type VaultKey struct {
	Type  string `json:"type"`
	Key   string `json:"key"`
	ReqID string `json:"_reqId,omitempty"`
}

// Validate checks the key.
func (f VaultKey) Validate() error { return ValidVaultKey(f.Key) }

// VaultGet asks for whole entries; keys that do not exist are left out of the answer.
type VaultGet struct {
	Type  string   `json:"type"`
	Keys  []string `json:"keys"`
	ReqID string   `json:"_reqId,omitempty"`
}

// Validate checks the keys.
func (f VaultGet) Validate() error {
	if len(f.Keys) == 0 || len(f.Keys) > MaxVaultKeys {
		return fmt.Errorf("%w: keys must be 1 to %d", ErrInvalid, MaxVaultKeys)
	}
	for _, k := range f.Keys {
		if err := ValidVaultKey(k); err != nil {
			return err
		}
	}
	return nil
}

// VaultAck answers vault_set and vault_delete.
type VaultAck struct {
	Type   string `json:"type"`
	Key    string `json:"key"`
	Action string `json:"action"`
	ReqID  string `json:"_reqId,omitempty"`
}

// VaultListResult answers vault_list, ordered by key.
type VaultListResult struct {
	Type    string         `json:"type"`
	Entries []VaultSummary `json:"entries"`
	ReqID   string         `json:"_reqId,omitempty"`
}

// VaultSummary is an entry without its value. Unset texts are null.
type VaultSummary struct {
	Key         string  `json:"key"`
	EntryType   string  `json:"entry_type"`
	MountPath   *string `json:"mount_path"`
	Description *string `json:"description"`
	UpdatedAt   string  `json:"updated_at"`
}

// VaultGetResult answers vault_get, in the order asked for.
type VaultGetResult struct {
	Type    string       `json:"type"`
	Entries []VaultEntry `json:"entries"`
	ReqID   string       `json:"_reqId,omitempty"`
}

// VaultEntry is an entry with its sealed value.
type VaultEntry struct {
	Key        string  `json:"key"`
	Ciphertext string  `json:"ciphertext"`
	Nonce      string  `json:"nonce"`
	SealedKey  string  `json:"sealed_key"`
	EntryType  string  `json:"entry_type"`
	MountPath  *string `json:"mount_path"`
}
