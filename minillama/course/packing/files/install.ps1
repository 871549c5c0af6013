# Install minillama @{version} and the labs from this folder, without a network.
#   powershell -ExecutionPolicy Bypass -File install.ps1 [-Target FOLDER] [-Python PATH]
param(
    [string]$Target = (Join-Path $HOME "minillama-course"),
    [string]$Python = ""
)
$ErrorActionPreference = "Stop"
$here = $PSScriptRoot
$lock = Join-Path $here "@{lock}"

function Stop-Install([string]$Message) {
    [Console]::Error.WriteLine("install.ps1: $Message")
    exit 2
}

if (-not (Test-Path -LiteralPath $lock)) { Stop-Install "$lock is missing; copy the whole pack" }

# The program and first arguments that start a Python of the pack's version, or nothing.
function Find-Python {
    $candidates = if ($Python) { , @($Python) } else { @("py", "-@{major}.@{minor}"), @("python"), @("python3") }
    $test = "import platform,sys;print('|'.join([platform.system(),platform.machine(),str(sys.version_info[0]),str(sys.version_info[1])]))"
    foreach ($candidate in $candidates) {
        $program = $candidate[0]
        $first = @($candidate | Select-Object -Skip 1)
        if (-not (Get-Command $program -ErrorAction SilentlyContinue)) { continue }
        try { $found = & $program @first -c $test 2>$null } catch { continue }
        if ($found -eq "@{system}|@{machine}|@{major}|@{minor}") { return , $candidate }
    }
}

$candidate = Find-Python
if (-not $candidate) {
    Stop-Install "no @{python} for @{platform} found; install it, or name it: -Python C:\path\to\python.exe"
}
$program = $candidate[0]
$first = @($candidate | Select-Object -Skip 1)

$venv = Join-Path $Target "venv"
Write-Output "1 of 3: an environment in $venv"
New-Item -ItemType Directory -Force -Path $Target | Out-Null
& $program @first -m venv $venv
if ($LASTEXITCODE -ne 0) { Stop-Install "no environment could be made in $venv; name another folder: -Target FOLDER" }
$bin = Join-Path $venv $(if ($env:OS -eq "Windows_NT") { "Scripts" } else { "bin" })

Write-Output "2 of 3: @{wheels} packages; one to four minutes"
# Without pip's configuration: it may name other indexes or constraints.
$env:PIP_CONFIG_FILE = if ($env:OS -eq "Windows_NT") { "nul" } else { "/dev/null" }
& (Join-Path $bin "python") -m pip --isolated --disable-pip-version-check install --quiet --no-index `
    --find-links (Join-Path $here "wheels") --require-hashes -r $lock
if ($LASTEXITCODE -ne 0) { Stop-Install "pip could not install the packages; compare the copy with SHA256SUMS" }

Write-Output "3 of 3: notebooks and models; your own files stay"
foreach ($part in "notebooks", "models") {
    $source = Join-Path $here $part
    foreach ($file in Get-ChildItem -LiteralPath $source -Recurse -File) {
        $copy = Join-Path (Join-Path $Target $part) $file.FullName.Substring($source.Length + 1)
        if (Test-Path -LiteralPath $copy) { continue }
        New-Item -ItemType Directory -Force -Path (Split-Path $copy) | Out-Null
        Copy-Item -LiteralPath $file.FullName -Destination $copy
    }
}

$minillama = Join-Path $bin "minillama"
$start = @"
# Open the labs: start.ps1 [LAB] [--lang zh]
& "`$PSScriptRoot/$([IO.Path]::GetFileName($venv))/$([IO.Path]::GetFileName($bin))/minillama" lab --dir "`$PSScriptRoot/notebooks" @args
"@
Set-Content -LiteralPath (Join-Path $Target "start.ps1") -Value $start -Encoding utf8

& $minillama run -p "Once upon a time" -n 16 -s 1 --no-perf
if ($LASTEXITCODE -ne 0) { Stop-Install "minillama is installed, but does not run; see: $minillama doctor" }
Write-Output ""
Write-Output "installed. Open lab 00:  powershell -ExecutionPolicy Bypass -File $(Join-Path $Target 'start.ps1')"
