//! The story: what happens to a reader's request when images expire. Every step is checked.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use testbed::Page;

use crate::Whatever;
use crate::stage::{Stage, Timed};

const TILE: &str = "0,0,512,512/512,/0/default.jpg";

/// Readers who come at once.
const CROWD: usize = 100;

/// Prints what happened, and remembers whether it should have.
struct Told {
    step: usize,
    wrong: usize,
}

impl Told {
    fn step(&mut self, what: &str) {
        self.step += 1;
        println!("{:>3}  {what}", self.step);
    }

    /// One line of a step: who was asked, what came, and whether that is right.
    fn line(&mut self, who: &str, timed: &Timed, remark: &str, is_right: bool) {
        let status = timed.answer.status;
        let heal = timed.answer.header("heal-status").split("; dur").next().unwrap_or_default();
        self.print(who, &status.to_string(), timed.took, heal, remark, is_right);
    }

    fn print(&mut self, who: &str, status: &str, took: Duration, heal: &str, remark: &str, is_right: bool) {
        let ms = took.as_secs_f64() * 1000.0;
        let verdict = if is_right { "ok" } else { "WRONG" };
        println!("     {who:<22} {status:>7} {ms:>9.1} ms   {heal:<21} {remark:<34} {verdict}");
        self.wrong += usize::from(!is_right);
    }
}

/// Plays it once. True: every step went as it should.
pub(crate) async fn play(stage: &Stage) -> Result<bool, Whatever> {
    let mut told = Told { step: 0, wrong: 0 };
    let started = Instant::now();
    println!("The story\n");
    let minutes = stage.bed.pages_of("obj/minutes");
    expires_and_heals(stage, &mut told, &minutes[0]).await?;
    crowd(stage, &mut told, &stage.bed.pages_of("obj/report")[1]).await?;
    stale_canvas(stage, &mut told, &stage.bed.pages_of("obj/map")[0]).await?;
    service_down(stage, &mut told, &minutes[0]).await?;
    missing_file(stage, &mut told, &minutes[5]).await?;
    let steps = told.step;
    let seconds = started.elapsed().as_secs_f64();
    match told.wrong {
        0 => println!("\n{steps} steps in {seconds:.1} s: all as it should be.\n"),
        wrong => println!("\n{steps} steps in {seconds:.1} s: {wrong} went wrong.\n"),
    }
    Ok(told.wrong == 0)
}

async fn expires_and_heals(stage: &Stage, told: &mut Told, page: &Page) -> Result<(), Whatever> {
    let tile = page.image_path(TILE);
    told.step("All is well: a reader asks for a tile.");
    let well = stage.ask(&tile).await?;
    let is_right = is_picture(&well, page) && well.answer.header("heal-status").is_empty();
    told.line("iiif-mender", &well, "passed on as it is", is_right);

    told.step("Redis loses everything. Every image has expired.");
    stage.bed.expires_everything();
    let bare = stage.ask_image_server(&tile).await?;
    told.line("image server itself", &bare, "what readers used to see", bare.answer.status == 404);
    let before = stage.canvas_requests(page);
    let healed = stage.ask(&tile).await?;
    stage.settles().await?;
    let requests = stage.canvas_requests(page) - before;
    let is_right = is_picture(&healed, page) && is_healed_by(&healed, "variant") && requests == 1;
    told.line("iiif-mender", &healed, &canvas_requests(requests), is_right);

    told.step("A second reader asks for the same tile.");
    let second = stage.ask(&tile).await?;
    let is_right = is_picture(&second, page) && second.answer.header("heal-status").is_empty();
    told.line("iiif-mender", &second, "nothing left to heal", is_right);
    Ok(())
}

async fn crowd(stage: &Stage, told: &mut Told, page: &Page) -> Result<(), Whatever> {
    told.step(&format!("{CROWD} readers open the same expired page of a PDF at once."));
    stage.bed.expires_everything();
    let before = stage.canvas_requests(page);
    let path = page.image_path(TILE);
    let started = Instant::now();
    let answers = try_join_all((0..CROWD).map(|_| stage.ask(&path))).await?;
    let took = started.elapsed();
    stage.settles().await?;
    let good = answers.iter().filter(|timed| is_picture(timed, page)).count();
    let requests = stage.canvas_requests(page) - before;
    let heal = answers.first().map_or("", |timed| timed.answer.header("heal-status"));
    let heal = heal.split("; dur").next().unwrap_or_default();
    let status = format!("{good}x200");
    told.print(
        "iiif-mender",
        &status,
        took,
        heal,
        &canvas_requests(requests),
        good == CROWD && requests == 1,
    );
    Ok(())
}

async fn stale_canvas(stage: &Stage, told: &mut Told, page: &Page) -> Result<(), Whatever> {
    told.step("Only the image's key is lost; the canvas JSON survived, and is built anew beside it.");
    stage.bed.caches_everything();
    stage.bed.redis.evict_keys();
    let before = stage.canvas_requests(page);
    let healed = stage.ask(&page.image_path(TILE)).await?;
    stage.settles().await?;
    let requests = stage.canvas_requests(page) - before;
    let is_right = is_picture(&healed, page) && is_healed_by(&healed, "variant") && requests == 1;
    told.line("iiif-mender", &healed, &canvas_requests(requests), is_right);
    Ok(())
}

async fn service_down(stage: &Stage, told: &mut Told, page: &Page) -> Result<(), Whatever> {
    told.step("The canvas service is down, but the file of page 1 was learned in step 2.");
    stage.bed.expires_everything();
    stage.bed.service.goes_down().await;
    let tile = page.image_path(TILE);
    let bare = stage.ask_image_server(&tile).await?;
    told.line("image server itself", &bare, "cannot ask where the file is", bare.answer.status == 500);
    let healed = stage.ask(&tile).await?;
    let is_right = is_picture(&healed, page) && is_healed_by(&healed, "direct");
    told.line("iiif-mender", &healed, "asked for the file itself", is_right);
    stage.bed.service.comes_up();
    stage.settles().await
}

async fn missing_file(stage: &Stage, told: &mut Told, page: &Page) -> Result<(), Whatever> {
    told.step("A file is really gone: no rebuild can help, and none is asked for.");
    stage.bed.registers_everything();
    stage.bed.fedora.removes_file(&page.path);
    let before = stage.canvas_requests(page);
    let tile = page.image_path(TILE);
    let bare = stage.ask_image_server(&tile).await?;
    told.line("image server itself", &bare, "the same 404 as an expired one's", bare.answer.status == 404);
    let honest = stage.ask(&tile).await?;
    stage.settles().await?;
    let requests = stage.canvas_requests(page) - before;
    let same = honest.answer.status == 404 && honest.answer.body == bare.answer.body;
    let is_right = same && honest.answer.header("heal-status") == "missing" && requests == 0;
    told.line("iiif-mender", &honest, &canvas_requests(requests), is_right);
    stage.bed.fedora.restores_file(&page.path);
    stage.bed.registers_everything();
    Ok(())
}

fn is_picture(timed: &Timed, page: &Page) -> bool {
    timed.answer.status == 200 && timed.answer.body == page.picture(TILE)
}

fn is_healed_by(timed: &Timed, rung: &str) -> bool {
    timed.answer.header("heal-status").starts_with(&format!("healed; rung={rung};"))
}

fn canvas_requests(count: usize) -> String {
    match count {
        0 => "no canvas request".to_owned(),
        1 => "1 canvas request".to_owned(),
        many => format!("{many} canvas requests"),
    }
}
