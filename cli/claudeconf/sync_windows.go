package claudeconf

// syncDir has nothing to do: a directory cannot be synced there.
func syncDir(string) error { return nil }
