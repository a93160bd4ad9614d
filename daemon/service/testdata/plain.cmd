@echo off
setlocal
chcp 65001 >nul
"C:\Program Files\claudemesh\claudemesh.exe" daemon up
