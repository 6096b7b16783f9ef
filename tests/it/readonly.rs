//! As an ordinary user on a read-only root: all of it works with one folder to write to, and says what is wrong without.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use testbed::{Client, Testbed};

use crate::support::program::{Serving, program};
use crate::support::world::patiently;

/// User and group that own nothing here.
const NOBODY: u32 = 65534;

/// Makes every mount read-only but the folder `$1`, becomes nobody, and runs the rest. First it looks whether that is so:
/// a test that could write anywhere would prove nothing.
const CONFINED: &str = r#"
state=$1; shift
mount --bind "$state" "$state"
while read -r _ _ _ _ point _; do
  [ "$point" = "$state" ] || mount -o remount,bind,ro "$point" 2>/dev/null || true
done </proc/self/mountinfo
[ "$CONFINE_STATE" != yes ] || mount -o remount,bind,ro "$state"
as="setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all"
for folder in /tmp /var/tmp "$PWD"; do
  ! $as touch "$folder/written" 2>/dev/null || { echo "$folder can be written" >&2; exit 99; }
done
exec $as "$@"
"#;

/// True where a mount namespace may be made. Elsewhere it is said past the test's captured output: a test that was
/// left out must not look like one that passed; `./test.sh` repeats it at its end.
pub(crate) fn may(what: &str, words: &[&str]) -> bool {
    let tried = Command::new(words[0]).args(&words[1..]).arg("true").output();
    let may = tried.is_ok_and(|output| output.status.success());
    if !may {
        let _written = writeln!(std::io::stderr(), "LEFT OUT: {what}: needs root, and `{}`", words.join(" "));
    }
    may
}

/// Where everything stands: `state` is nobody's own, all else belongs to root.
struct Place {
    bed: Testbed,
    folder: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let bed = Testbed::builder().book("obj/book", 2).page_size(600, 800).start().await;
        let folder = tempfile::tempdir().expect("a directory");
        let at = folder.path();
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).expect("ours");
        for name in ["manifests", "state"] {
            fs::create_dir(at.join(name)).expect("a directory");
        }
        chown(at.join("state"), Some(NOBODY), Some(NOBODY)).expect("we are root");
        bed.write_manifests(&at.join("manifests")).expect("manifests");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\npublic_hosts = [\"api.library.tamu.edu\"]\n\
             [admin]\nlisten = \"127.0.0.1:0\"\nsetup_check = \"0s\"\n[log]\nformat = \"json\"\n[index]\npath = \"state/index.sqlite3\"\n\
             [cache]\nmemory = 0\n[heal]\nahead = 0\ncooldown = \"1ms\"\nladder = [\"visit\"]\n{}[[index.sources]]\npath = \"manifests\"\n",
            testbed::routes(&bed.images.origin(), &bed.service.origin())
        );
        fs::write(at.join("config.toml"), text).expect("a file");
        Self { bed, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command in there; with the state read-only, too, if `sealed`.
    fn confined(&self, words: &[&str], sealed: bool) -> Command {
        // What is linked anew while the tests run would be a file in use; and the build's folder may be closed to others.
        let binary = self.path("iiif-mender");
        if !binary.exists() {
            fs::copy(assert_cmd::cargo::cargo_bin!("iiif-mender"), &binary).expect("the program");
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-eu", "-c", CONFINED, "sh"]).arg(self.path("state"));
        command.arg(binary).args(words).current_dir(self.folder.path());
        command.env("CONFINE_STATE", if sealed { "yes" } else { "no" }).env("HOME", "/nonexistent");
        for (name, _) in program(Path::new("/"), &[]).get_envs() {
            command.env_remove(name);
        }
        command
    }

    /// What a command that goes well says.
    fn runs(&self, words: &[&str]) -> String {
        let output = self.confined(words, false).output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Expired pages are healed by the first request for each.
    async fn heals(&self, serving: &Serving) {
        self.bed.service.image_server_url(format!("http://{}/iiif/2", serving.viewers));
        let client = Client::default();
        // A key that is lost while its canvas is still being built is another story.
        scrapes(serving, "iiif_mender_flights 0").await;
        self.bed.expires_everything();
        for page in self.bed.pages() {
            let tile = "0,0,256,256/64,/0/default.jpg";
            let url = format!("http://{}{}", serving.viewers, page.image_path(tile));
            let answer = client.get(&url, &[]).await.expect("an answer");
            assert_eq!(answer.status, 200, "{:?}", answer.headers);
            assert_eq!(answer.body, page.picture(tile));
        }
    }
}

/// Waits until this line stands in the scrape.
async fn scrapes(serving: &Serving, wanted: &str) {
    let url = format!("http://{}/metrics", serving.admin);
    let began = Instant::now();
    loop {
        let scrape = testbed::get(&url).await.text();
        if scrape.lines().any(|line| line == wanted) {
            return;
        }
        assert!(began.elapsed().as_secs() < 30, "no {wanted} in {scrape}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_ordinary_user_on_a_read_only_root_serves_heals_indexes_and_reloads() {
    if !may("a read-only root", &["unshare", "--mount", "setpriv", "--reuid=65534"]) {
        return;
    }
    let place = Place::new().await;
    place.runs(&["index", "build"]);
    let mut serving = Serving::of(place.confined(&["serve"], false));
    place.heals(&serving).await;
    // A new manifest is seen; so is a change of the configuration.
    let more = Testbed::builder().book("obj/more", 3).start().await;
    more.write_manifests(&place.path("manifests")).expect("manifests");
    scrapes(&serving, "iiif_mender_index_images 5").await;
    place.runs(&["index", "refresh"]);
    let text = fs::read_to_string(place.path("config.toml")).expect("a file");
    fs::write(place.path("config.toml"), text.replace("ahead = 0", "ahead = 1")).expect("a file");
    serving.gets("-HUP");
    assert_eq!(serving.says("the configuration was read anew")["changed"], "heal.ahead");
    place.heals(&serving).await;
    serving.gets("-TERM");
    assert_eq!(serving.ends().await.code(), Some(0));
    assert!(place.runs(&["index", "history"]).contains("visit"));
    // Nothing was written anywhere else.
    let mut beside: Vec<_> = fs::read_dir(place.folder.path())
        .expect("ours")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    beside.sort();
    assert_eq!(beside, ["config.toml", "iiif-mender", "manifests", "state"]);
}

#[tokio::test]
async fn with_the_state_read_only_too_an_index_is_served_from_and_a_missing_one_is_told() {
    if !may("a read-only state", &["unshare", "--mount", "setpriv", "--reuid=65534"]) {
        return;
    }
    let place = Place::new().await;
    let mut bare = Serving::of(place.confined(&["serve"], true));
    let ready = testbed::get(&format!("http://{}/readyz", bare.admin)).await.text();
    assert_eq!(ready, "ready\ndegraded: index\n");
    bare.gets("-TERM");
    assert_eq!(bare.ends().await.code(), Some(0));
    let said = bare.all().iter().map(ToString::to_string).collect::<String>();
    for word in ["state/index.sqlite3", "the index cannot be written", "Give this user write access"] {
        assert!(said.contains(word), "{said}");
    }
    place.runs(&["index", "build"]);
    let mut serving = Serving::of(place.confined(&["serve"], true));
    place.heals(&serving).await;
    let refresh = place.confined(&["index", "refresh"], true).output().expect("it runs");
    let said = String::from_utf8_lossy(&refresh.stderr).into_owned();
    assert_eq!(refresh.status.code(), Some(1), "{said}");
    assert!(said.contains("the index cannot be written"), "{said}");
    patiently("nothing is under way", || place.bed.counts().canvas_now == 0).await;
    serving.gets("-TERM");
    assert_eq!(serving.ends().await.code(), Some(0));
}
