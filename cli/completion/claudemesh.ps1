# Completion of claudemesh for PowerShell. In $PROFILE:  claudemesh completion powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName claudemesh -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $before = @($commandAst.CommandElements | Select-Object -Skip 1 | Where-Object { $_.Extent.EndOffset -lt $cursorPosition } | ForEach-Object { $_.ToString().Trim("'", '"') })
    claudemesh __complete "--current=$wordToComplete" -- @before 2>$null | ForEach-Object {
        $value, $what = $_ -split "`t", 2
        $quoted = $value
        if ($value -notmatch '^[A-Za-z0-9_./=-]+$') { $quoted = "'" + $value.Replace("'", "''") + "'" }
        if (-not $what) { $what = $value }
        [System.Management.Automation.CompletionResult]::new($quoted, $value, 'ParameterValue', $what)
    }
}
