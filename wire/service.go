package wire

import (
	"encoding/json"
	"fmt"
	"regexp"
)

// Services: a member offers the tools of an MCP server to its mesh; calls are carried through the broker to the connection that registered it.
const (
	TypeMCPRegister      = "mcp_register"
	TypeMCPRegisterAck   = "mcp_register_ack"
	TypeMCPUnregister    = "mcp_unregister"
	TypeMCPList          = "mcp_list"
	TypeMCPListResult    = "mcp_list_result"
	TypeMCPCall          = "mcp_call"
	TypeMCPCallResult    = "mcp_call_result"
	TypeMCPCallForward   = "mcp_call_forward"
	TypeMCPCallResponse  = "mcp_call_response"
	TypeMCPSchema        = "mcp_schema"
	TypeMCPSchemaResult  = "mcp_schema_result"
	TypeMCPCatalog       = "mcp_catalog"
	TypeMCPCatalogResult = "mcp_catalog_result"
	TypeMCPDeploy        = "mcp_deploy"
	TypeMCPUndeploy      = "mcp_undeploy"
)

// System events about services.
const (
	EventServiceRegistered   = "mcp_registered"
	EventServiceUnregistered = "mcp_unregistered"
	EventServiceRestored     = "mcp_restored"
)

// Error codes of services.
const (
	CodeInvalidName   = "invalid_name"
	CodeDeployError   = "deploy_error"
	CodeUndeployError = "undeploy_error"
	CodeNameTaken     = "name_taken" // ours: the reference lets anybody replace a service
)

// Bounds of a registration.
const (
	MaxServiceTools     = 128
	MaxServiceToolsJSON = 256 << 10 // all tools of a service, encoded
)

var serviceName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{0,63}$`)

// ValidServiceName reports whether s can name a service: a letter or digit, then up to 63 letters, digits, "_" or "-".
func ValidServiceName(s string) bool { return serviceName.MatchString(s) }

// Tool is one tool of a service. InputSchema is a JSON Schema object; lists without schemas leave it out.
type Tool struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	InputSchema json.RawMessage `json:"inputSchema,omitempty"`
}

// Service is a row of hello_ack.services.
type Service struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Status      string `json:"status"`
	Tools       []Tool `json:"tools"`
	DeployedBy  string `json:"deployed_by"`
}

// MCPRegister offers a service. Persistent: it stays listed as offline when this connection ends.
type MCPRegister struct {
	Type        string `json:"type"`
	ServerName  string `json:"serverName"`
	Description string `json:"description"`
	Tools       []Tool `json:"tools"`
	Persistent  bool   `json:"persistent,omitempty"`
	ReqID       string `json:"_reqId,omitempty"`
}

// Validate checks names and sizes.
func (r MCPRegister) Validate() error {
	if len(r.Tools) > MaxServiceTools {
		return fmt.Errorf("%w: more than %d tools", ErrInvalid, MaxServiceTools)
	}
	size := 0
	for _, t := range r.Tools {
		if err := firstError(required("tool name", t.Name), tooLong("tool name", t.Name, MaxNameBytes)); err != nil {
			return err
		}
		size += len(t.Name) + len(t.Description) + len(t.InputSchema)
	}
	if size > MaxServiceToolsJSON {
		return fmt.Errorf("%w: tools over %d bytes", ErrInvalid, MaxServiceToolsJSON)
	}
	return tooLong("description", r.Description, MaxTextBytes)
}

// MCPRegisterAck answers MCPRegister.
type MCPRegisterAck struct {
	Type       string `json:"type"`
	ServerName string `json:"serverName"`
	ToolCount  int    `json:"toolCount"`
	ReqID      string `json:"_reqId,omitempty"`
}

// MCPServer is a row of mcp_list_result. Its tools have no schemas. OfflineSince is a timestamp, absent while Online.
type MCPServer struct {
	Name         string `json:"name"`
	Description  string `json:"description"`
	HostedBy     string `json:"hostedBy"`
	Tools        []Tool `json:"tools"`
	Online       bool   `json:"online"`
	OfflineSince string `json:"offlineSince,omitempty"`
}

// MCPListResult answers mcp_list, ordered by name.
type MCPListResult struct {
	Type    string      `json:"type"`
	Servers []MCPServer `json:"servers"`
	ReqID   string      `json:"_reqId,omitempty"`
}

// MCPCall asks a service to run a tool. Args is a JSON object.
type MCPCall struct {
	Type       string          `json:"type"`
	ServerName string          `json:"serverName"`
	ToolName   string          `json:"toolName"`
	Args       json.RawMessage `json:"args"`
	ReqID      string          `json:"_reqId,omitempty"`
}

// Validate checks presence and lengths.
func (c MCPCall) Validate() error {
	return firstError(required("serverName", c.ServerName), required("toolName", c.ToolName), tooLong("serverName", c.ServerName, MaxNameBytes), tooLong("toolName", c.ToolName, MaxNameBytes))
}

// MCPCallForward carries a call to the host. CallerKey is the member key of the caller; ours, absent from a reference broker.
type MCPCallForward struct {
	Type       string          `json:"type"`
	CallID     string          `json:"callId"`
	ServerName string          `json:"serverName"`
	ToolName   string          `json:"toolName"`
	Args       json.RawMessage `json:"args"`
	CallerName string          `json:"callerName"`
	CallerKey  string          `json:"callerKey,omitempty"`
}

// MCPCallResponse is the host's answer; only the connection that the call was forwarded to can give it.
type MCPCallResponse struct {
	Type   string          `json:"type"`
	CallID string          `json:"callId"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
	ReqID  string          `json:"_reqId,omitempty"`
}

// Validate checks presence and lengths.
func (r MCPCallResponse) Validate() error {
	return firstError(required("callId", r.CallID), tooLong("callId", r.CallID, MaxIDBytes), tooLong("error", r.Error, MaxTextBytes))
}

// MCPCallResult answers MCPCall: Result, or Error as a sentence.
type MCPCallResult struct {
	Type   string          `json:"type"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
	ReqID  string          `json:"_reqId,omitempty"`
}

// MCPSchema asks for the tools of a service, or one of them, with their schemas.
type MCPSchema struct {
	Type       string `json:"type"`
	ServerName string `json:"server_name"`
	ToolName   string `json:"tool_name,omitempty"`
	ReqID      string `json:"_reqId,omitempty"`
}

// MCPSchemaResult answers MCPSchema; no tools when the service is unknown.
type MCPSchemaResult struct {
	Type       string `json:"type"`
	ServerName string `json:"server_name"`
	Tools      []Tool `json:"tools"`
	ReqID      string `json:"_reqId,omitempty"`
}

// CatalogEntry is a row of mcp_catalog_result. Here every service is live: its source type is "live", its scope the mesh.
type CatalogEntry struct {
	Name        string `json:"name"`
	Type        string `json:"type"`
	Description string `json:"description"`
	Status      string `json:"status"`
	ToolCount   int    `json:"tool_count"`
	DeployedBy  string `json:"deployed_by"`
	Scope       string `json:"scope"`
	SourceType  string `json:"source_type"`
	Runtime     string `json:"runtime"`
	CreatedAt   string `json:"created_at"`
}

// MCPCatalogResult answers mcp_catalog.
type MCPCatalogResult struct {
	Type     string         `json:"type"`
	Services []CatalogEntry `json:"services"`
	ReqID    string         `json:"_reqId,omitempty"`
}

// ServiceEvent is the eventData of the events about services.
type ServiceEvent struct {
	ServerName  string   `json:"serverName"`
	Description string   `json:"description,omitempty"`
	Tools       []string `json:"tools,omitempty"`
	HostedBy    string   `json:"hostedBy"`
}
