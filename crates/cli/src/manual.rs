//! What help and manual say of the program as a whole: the environment and the configuration file.
//!
//! - No line of a table is wider than 79 columns: what is wrapped is no table any more.

/// The variables of the environment, for help and manual.
pub(crate) const ENVIRONMENT: &str = "\
Environment:
  DRYSTONE_VAULT               place of the vault, or name of a profile
  DRYSTONE_KEY_FILE            key file, or ssh private key
  DRYSTONE_PASSPHRASE          the passphrase or recovery code itself
  DRYSTONE_PASSPHRASE_FILE     a file that holds it
  DRYSTONE_PASSPHRASE_COMMAND  a shell command that prints it
  DRYSTONE_CACHE_DIR           cache directory (rebuilt if deleted)
  DRYSTONE_TO_…                the same of the vault that `copy` copies to:
                               DRYSTONE_TO_VAULT, DRYSTONE_TO_KEY_FILE, …

Credentials of places are in no URL and not in the vault (docs/places.md):
  s3://      AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; AWS_ENDPOINT_URL,
             AWS_REGION
  swift://   ST_AUTH, ST_USER, ST_KEY, or OS_AUTH_URL, OS_USERNAME,
             OS_PASSWORD, OS_PROJECT_NAME
  sftp://    the SSH agent and ~/.ssh, or ?key=FILE in the URL
  webdav://  DRYSTONE_WEBDAV_USER, DRYSTONE_WEBDAV_PASSWORD";
/// The configuration file, for help and manual.
pub(crate) const CONFIGURATION: &str = "\
Configuration file ($XDG_CONFIG_HOME/drystone/config.toml, or --config FILE):
  [profile.default]           used if no vault is named; others: --vault NAME
  vault = \"/mnt/disk/vault\"   or several places with commas
  key-file = \"\"               or passphrase-file = \"\"
                              or passphrase-command = \"\"
  cache-dir = \"\"
  threads = 2
  memory = 64                 MiB for caches and index; buffers come on top
  paths = []                  what `backup` takes if no path is given
  exclude = []                as the flags of `backup`, which add to these:
  exclude-file = []             include = []    exclude-caches = true
  exclude-if-present = []       tag = []        one-file-system = true
  compression = \"zstd:3\"        host = \"\"
  Relative paths begin at the directory of the file. Flags come before environment, environment before profile. \
A place given as URL or path uses the profile with this very `vault`, if there is one.";
/// What drystone keeps on a machine, for the manual.
pub(crate) const FILES: &str = "\
~/.config/drystone/config.toml   the configuration file, see below
~/.config/drystone/keys/         generated keys, one for each vault
~/.config/drystone/known/        which vault lies where, and how new it is
~/.cache/drystone/               the index and what else can be rebuilt
~/.local/share/drystone/vault/   the vault, if no place is named";
