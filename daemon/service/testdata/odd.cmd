@echo off
setlocal
chcp 65001 >nul
set "CLAUDEMESH_DAEMON_DIR=D:\%%PATH%% (x)!"
"C:\50%% & more^\Ünï\claudemesh.exe" daemon up
