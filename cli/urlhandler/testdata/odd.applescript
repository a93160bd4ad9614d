on open location theLink
	set theCommand to quoted form of "/home/ada b/50% \"$HOME\" `x` \\ <&>;/claudemesh" & " url-handler open --pause -- " & quoted form of theLink
	tell application "Terminal"
		activate
		do script theCommand
	end tell
end open location
