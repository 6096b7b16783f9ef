//! The servers that stand before us in the operations manual: each takes its snippet, and a tile heals through those that
//! most libraries have.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use testbed::{Kind, Page};

use crate::docs::{fenced, read};
use crate::support::cluster_world::free_port;
use crate::support::program::KilledOnDrop;
use crate::support::world::World;

/// The only snippet of this server in the manual, with the places of this test.
fn snippet(language: &str, proxy: SocketAddr, admin: SocketAddr) -> String {
    let [snippet] = &fenced(&read("docs/OPERATIONS.md"), language)[..] else {
        panic!("OPERATIONS.md has one snippet for {language}")
    };
    assert!(snippet.contains("127.0.0.1:8080"), "{snippet}");
    let check = format!("check port {}", admin.port());
    snippet.replace("127.0.0.1:8080", &proxy.to_string()).replace("check port 9090", &check)
}

/// A program of Debian's, which keeps such where an ordinary user's PATH does not lead.
fn program(name: &str, package: &str, arguments: &[&str]) -> Command {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .map(|folder| Path::new(folder).join(name))
        .into_iter()
        .find(|path| path.exists());
    let mut command =
        Command::new(found.unwrap_or_else(|| panic!("{name} is missing: apt-get install {package}")));
    command.args(arguments);
    command
}

/// Checks the configuration as the server itself does.
fn is_in_order(mut check: Command) {
    let said = check.output().expect("it was found");
    assert!(said.status.success(), "{check:?}: {}", String::from_utf8_lossy(&said.stderr));
}

fn nginx(folder: &Path, port: u16, snippet: &str) -> String {
    let at = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {at}/{kind};"))
        .join(" ");
    format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log stderr;\nevents {{}}\n\
         http {{ access_log off; {temporary}\nserver {{ listen 127.0.0.1:{port};\n{snippet}\n}} }}\n"
    )
}

fn haproxy(port: u16, snippet: &str) -> String {
    let bound = snippet.replace(
        "frontend library\n",
        &format!(
            "defaults\n    mode http\n    timeout connect 5s\n    timeout client 130s\n    timeout server 30s\n\n\
             frontend library\n    bind 127.0.0.1:{port}\n"
        ),
    );
    format!("{bound}\n")
}

/// A world that believes its front, and where the front is to listen.
async fn world() -> (World, SocketAddr, SocketAddr, u16) {
    let world = World::with("server.trusted_proxies = 127.0.0.1").await;
    let (proxy, admin) = (world.app.addresses[0], world.app.admin.expect("an admin listener"));
    (world, proxy, admin, free_port())
}

/// A page expires and heals through the front; odd identifiers arrive as they were sent; who asked, and where, is known.
async fn heals_through(world: &World, port: u16, mut serve: Command) {
    let serve = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _front = KilledOnDrop(serve.spawn().expect("it was found"));
    let asked = async |path: &str| {
        let url = format!("http://127.0.0.1:{port}{path}");
        world.client.get(&url, &[]).await
    };
    let page: Page = world.bed.page();
    // It must listen, and HAProxy passes nothing on before its own first check went well.
    let mut tries = 0;
    while !asked(&page.thumbnail_path()).await.is_ok_and(|answer| answer.status == 200) {
        tries += 1;
        assert!(tries < 400, "nothing comes through the front");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ask = async |path: &str| asked(path).await.expect("an answer");

    world.bed.expires_everything();
    world.bed.ledger.clear();
    let healed = ask(&page.thumbnail_path()).await;
    assert_eq!(healed.status, 200, "{healed:?}");
    assert_eq!(healed.body, page.picture("full/150,/0/default.jpg"));
    assert!(healed.header("heal-status").starts_with("healed"), "{healed:?}");

    let info = ask(&page.info_path()).await.json();
    assert_eq!(info["@id"], format!("http://127.0.0.1:{port}/iiif/2/{}", page.identifier));

    let odd = "/iiif/2/a%2Fb%3B2;3//full/max/0/default.jpg?t=1%20x";
    ask(odd).await;
    let log = world.bed.ledger.log();
    let seen = log.iter().find(|seen| seen.target == odd);
    let seen =
        seen.unwrap_or_else(|| panic!("{odd} arrived otherwise: {:?}", world.bed.targets(Kind::Image)));
    let field = |name: &str| seen.headers[name].to_str().expect("text").to_owned();
    assert_eq!(field("x-forwarded-proto"), "http");
    assert_eq!(field("x-forwarded-port"), port.to_string());
    assert!(field("x-forwarded-host").starts_with("127.0.0.1"), "{seen:?}");
    assert_eq!(field("x-forwarded-for"), "127.0.0.1, 127.0.0.1", "the reader, then the front");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tile_heals_through_nginx() {
    let (world, proxy, admin, port) = world().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("nginx.conf");
    fs::write(&file, nginx(folder.path(), port, &snippet("nginx", proxy, admin))).expect("a file");
    let arguments = ["-c", file.to_str().expect("text"), "-e", "stderr"];
    is_in_order(program("nginx", "nginx-light", &[&["-t"], &arguments[..]].concat()));
    heals_through(&world, port, program("nginx", "nginx-light", &arguments)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tile_heals_through_haproxy() {
    let (world, proxy, admin, port) = world().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("haproxy.cfg");
    fs::write(&file, haproxy(port, &snippet("haproxy", proxy, admin))).expect("a file");
    let file = file.to_str().expect("text");
    is_in_order(program("haproxy", "haproxy", &["-c", "-q", "-f", file]));
    heals_through(&world, port, program("haproxy", "haproxy", &["-db", "-q", "-f", file])).await;
}

#[test]
fn apache_takes_its_snippet() {
    let proxy = SocketAddr::from(([127, 0, 0, 1], 8080));
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().display();
    let modules = ["mpm_event", "authz_core", "headers", "proxy", "proxy_http"]
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .concat();
    let text = format!(
        "{modules}ServerName library.test\nServerRoot {at}\nDefaultRuntimeDir {at}\nPidFile {at}/pid\n\
         ErrorLog /dev/null\nListen 127.0.0.1:8081\n<VirtualHost *:8081>\n{}\n</VirtualHost>\n",
        snippet("apache", proxy, proxy)
    );
    let file = folder.path().join("apache.conf");
    fs::write(&file, text).expect("a file");
    is_in_order(program("apache2", "apache2-bin", &["-t", "-f", file.to_str().expect("text")]));
}
