use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn target(rest: &str) -> Target<'_> {
    ImageRequest::parse(rest).unwrap().target
}

#[rstest]
#[case::base("id", Target::Base)]
#[case::base_with_slash("id/", Target::Base)]
#[case::info("id/info.json", Target::Info)]
#[case::info_behind_two_slashes("id//info.json", Target::Info)]
#[case::image(
    "id/full/full/0/default.jpg",
    Target::Image { region: "full", size: "full", rotation: "0", file: "default.jpg" }
)]
#[case::image_behind_two_slashes(
    "id//full/full/0/default.jpg",
    Target::Image { region: "full", size: "full", rotation: "0", file: "default.jpg" }
)]
#[case::escapes_are_kept_as_sent(
    "id/0%2C0%2C1024%2C1024/%212%30,200/%210/default.jpg",
    Target::Image { region: "0%2C0%2C1024%2C1024", size: "%212%30,200", rotation: "%210", file: "default.jpg" }
)]
fn each_form_is_told_from_the_others(#[case] rest: &str, #[case] expected: Target<'_>) {
    let request = ImageRequest::parse(rest).unwrap();
    assert_eq!(request.target, expected);
    assert_eq!(request.identifier.as_sent(), "id");
}

#[rstest]
#[case::empty("")]
#[case::slash("/")]
#[case::no_identifier("/full/full/0/default.jpg")]
#[case::no_identifier_info("//info.json")]
fn without_identifier_there_is_no_request(#[case] rest: &str) {
    assert_eq!(ImageRequest::parse(rest), None);
}

#[rstest]
#[case("s3:%2F%2Fbucket%2Fa.jpg")]
#[case("13c09e7b-ddb5-30f5-a4ce-eecebd330564;1")]
#[case("aHR0cHM6Ly9l%3D%3D")]
#[case("100%")]
#[case("%C3%A9")]
#[case("ä")]
fn identifiers_are_kept_as_sent(#[case] id: &str) {
    for tail in ["", "/", "/info.json", "/full/max/0/default.webp", "//full/,1/0/gray.png"] {
        let rest = format!("{id}{tail}");
        let request = ImageRequest::parse(&rest).unwrap();
        assert_eq!(request.identifier.as_sent(), id);
        assert_ne!(request.target, Target::Other, "{rest}");
    }
}

#[rstest]
fn the_grammar_of_image_api_2_and_3_is_taken(
    #[values("full", "square", "0,0,10,10", "pct:0,0,50.5,.5", "pct%3A1,2,3,4", "1%2c2%2C3,4")] region: &str,
) {
    let sizes = "full max 200, ,200 pct:50 pct:0.1 200,100 !200,200 %21200%2C200 ^max %5Emax ^200, ^,200 ^pct:150 \
                 ^200,100 ^!200,200";
    for size in sizes.split(' ') {
        for rotation in ["0", "90", "!90", "22.5", "360", "360.0", "!0"] {
            for file in ["default.jpg", "color.tif", "gray.png", "bitonal.gif", "native.jp2", "default.JPG"] {
                let rest = format!("id/{region}/{size}/{rotation}/{file}");
                assert_eq!(target(&rest), Target::Image { region, size, rotation, file });
                assert!(ImageRequest::parse(&rest).unwrap().is_healable());
            }
        }
    }
}

#[rstest]
#[case::size_zero_width("id/full/0,/0/default.jpg")]
#[case::size_zero_height("id/full/,0/0/default.jpg")]
#[case::size_zero_confined("id/full/!0,0/0/default.jpg")]
#[case::size_half_zero("id/full/20,0/0/default.jpg")]
#[case::size_of_nothing("id/full/,/0/default.jpg")]
#[case::size_empty("id/full//0/default.jpg")]
#[case::size_three_numbers("id/full/1,2,3/0/default.jpg")]
#[case::size_confined_half("id/full/!200,/0/default.jpg")]
#[case::size_decimal("id/full/1.5,/0/default.jpg")]
#[case::size_percent_zero("id/full/pct:0/0/default.jpg")]
#[case::size_negative("id/full/-1,/0/default.jpg")]
#[case::size_bare_number("id/full/200/0/default.jpg")]
#[case::size_upscaled_full("id/full/^full/0/default.jpg")]
#[case::size_wrong_order("id/full/!^1,1/0/default.jpg")]
#[case::size_escaped_twice("id/full/200%252C/0/default.jpg")]
#[case::region_empty_width("id/0,0,0,5/max/0/default.jpg")]
#[case::region_three_numbers("id/0,0,5/max/0/default.jpg")]
#[case::region_five_numbers("id/0,0,5,5,5/max/0/default.jpg")]
#[case::region_unknown_word("id/whole/max/0/default.jpg")]
#[case::region_decimal_pixels("id/0,0,5.5,5/max/0/default.jpg")]
#[case::region_two_points("id/pct:0,0,5..5,5/max/0/default.jpg")]
#[case::region_only_points("id/pct:0,0,.,5/max/0/default.jpg")]
#[case::rotation_too_far("id/full/max/361/default.jpg")]
#[case::rotation_just_too_far("id/full/max/360.1/default.jpg")]
#[case::rotation_overflow("id/full/max/99999999999999999999/default.jpg")]
#[case::rotation_word("id/full/max/left/default.jpg")]
#[case::rotation_empty("id/full/max//default.jpg")]
#[case::quality_unknown("id/full/max/0/best.jpg")]
#[case::no_format("id/full/max/0/default")]
#[case::empty_format("id/full/max/0/default.")]
#[case::long_format("id/full/max/0/default.jpgjpgjpg")]
#[case::odd_format("id/full/max/0/default.j-g")]
#[case::extra_segment("id/full/max/0/default.jpg/x")]
#[case::trailing_slash("id/full/max/0/default.jpg/")]
#[case::missing_segment("id/full/max/default.jpg")]
#[case::canvas_under_an_identifier("id/canvas/c/1")]
#[case::info_in_other_case("id/INFO.json")]
#[case::info_with_tail("id/info.json/")]
#[case::three_slashes("id///info.json")]
#[case::escaped_slashes("id/full%2Fmax%2F0%2Fdefault.jpg")]
fn a_malformed_request_is_never_healed(#[case] rest: &str) {
    assert_eq!(target(rest), Target::Other);
    assert!(!ImageRequest::parse(rest).unwrap().is_healable());
}

#[rstest]
#[case::slash("vol1/f1", "/info.json", "vol1/f1")]
#[case::slashes("a/b/c", "/full/max/0/default.jpg", "a/b/c")]
#[case::encoded_slash("vol1%2Ff1", "/full/max/0/default.jpg", "vol1/f1")]
#[case::words_of_the_grammar("full/max/0/default.jpg", "/full/max/0/default.jpg", "full/max/0/default.jpg")]
#[case::in_the_query("iipsrv.fcgi?IIIF=vol1/f1", "/full/max/0/default.jpg", "iipsrv.fcgi?IIIF=vol1/f1")]
#[case::in_the_query_from_the_root("?IIIF=/vol1/f1", "/info.json", "?IIIF=/vol1/f1")]
#[case::in_the_query_behind_others("x?a=b&iiif=vol1/f1", "/info.json", "x?a=b&iiif=vol1/f1")]
#[case::encoded_in_the_query("x?IIIF=vol1%2Ff1", "/info.json&c=d", "x?IIIF=vol1/f1")]
fn what_stands_before_the_last_segments_is_the_identifier(
    #[case] id: &str,
    #[case] tail: &str,
    #[case] key: &str,
) {
    let rest = format!("{id}{tail}");
    let request = ImageRequest::parse(&rest).unwrap();
    assert!(request.is_healable(), "{request:?}");
    assert_eq!((request.identifier.as_sent(), &*request.identifier.key()), (id, key));
}

#[rstest]
#[case("id/info.json?cache=nocache", Target::Info)]
#[case("id?IIIF=", Target::Base)]
#[case("id?t=IIIF=x/info.json", Target::Base)]
fn any_other_query_is_passed_over(#[case] rest: &str, #[case] expected: Target<'_>) {
    let request = ImageRequest::parse(rest).unwrap();
    assert_eq!((request.identifier.as_sent(), request.target), ("id", expected));
}

#[test]
fn a_404_of_the_base_uri_is_no_expiry() {
    assert!(!ImageRequest::parse("id/").unwrap().is_healable());
    assert!(ImageRequest::parse("id/info.json").unwrap().is_healable());
}

#[test]
fn an_endless_escaped_parameter_is_malformed() {
    let rest = format!("id/{}/max/0/default.jpg", "%31".repeat(10_000));
    assert_eq!(target(&rest), Target::Other);
}

proptest! {
    #[test]
    fn any_path_is_read_without_panic_and_its_identifier_kept(rest in "\\PC*") {
        match ImageRequest::parse(&rest) {
            Some(request) => prop_assert!(rest.starts_with(request.identifier.as_sent())),
            None => prop_assert!(rest.is_empty() || rest.starts_with(['/', '?'])),
        }
    }

    #[test]
    fn anything_made_of_the_grammars_letters_is_read_without_panic(
        rest in "id(/[fulmaxsqrepct:,!^0-9.%23CdjgEnao]{0,12}){0,6}"
    ) {
        if let Target::Image { region, size, rotation, file } = target(&rest) {
            let tail = ["", region, size, rotation, file].join("/");
            prop_assert!(rest.ends_with(&tail));
        }
    }
}
