on open location theLink
	set theCommand to quoted form of "/usr/local/bin/claudemesh" & " url-handler open --pause -- " & quoted form of theLink
	tell application "Terminal"
		activate
		do script theCommand
	end tell
end open location
