//! Chat templates: Jinja that reaches beyond the conversation it is given.
//!
//! A template is a program, and an environment that is not sandboxed lets it walk from any value to Python's
//! builtins by `__class__`, `__globals__` and their like. Names of that kind have no place in a conversation, however
//! they are spelled: as attributes, as subscripts, through filters, or joined from pieces.

/// Attributes that lead from a value to code, whatever stands before them.
const INTERNAL: &[&str] = &[
    "func_globals",
    "func_code",
    "func_closure",
    "im_func",
    "im_self",
    "im_class",
    "gi_frame",
    "gi_code",
    "gi_yieldfrom",
    "cr_frame",
    "cr_code",
    "ag_frame",
    "ag_code",
    "tb_frame",
    "tb_next",
    "f_globals",
    "f_locals",
    "f_builtins",
    "f_back",
    "f_code",
    "co_code",
    "mro",
    "popen",
    "import_module",
];

/// Names with two underscores on either side that lead to code.
const DUNDERS: &[&str] = &[
    "__class__",
    "__globals__",
    "__subclasses__",
    "__builtins__",
    "__import__",
    "__init__",
    "__new__",
    "__mro__",
    "__base__",
    "__bases__",
    "__getattribute__",
    "__getattr__",
    "__getitem__",
    "__dict__",
    "__code__",
    "__self__",
    "__func__",
    "__closure__",
    "__reduce__",
    "__reduce_ex__",
    "__call__",
    "__loader__",
    "__spec__",
    "__wrapped__",
    "__module__",
    "__defaults__",
    "__init_subclass__",
];

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Number,
    Sign(u8),
}

/// What a template does that no conversation needs; the byte in it, and what it is.
pub(super) fn dangers(template: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (begin, code) in blocks(template) {
        let tokens = tokens(code);
        let mut say = |what: String| {
            if !found.iter().any(|(_, said)| *said == what) {
                found.push((begin, what));
            }
        };
        attributes(&tokens, &mut say);
        spelled(&tokens, &mut say);
    }
    found
}

/// The code between `{{ }}` and `{% %}`, and lines of code.
fn blocks(template: &str) -> Vec<(usize, &str)> {
    let bytes = template.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = memchr::memchr(b'{', &bytes[at..]) {
        let begin = at + next;
        let close: &str = match bytes.get(begin + 1) {
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            Some(b'#') => "#}",
            _ => {
                at = begin + 1;
                continue;
            }
        };
        let inside = begin + 2;
        let end = end_of_block(bytes, inside, close.as_bytes());
        if close != "#}" {
            found.push((begin, &template[inside..end]));
        }
        at = (end + 2).min(bytes.len());
    }
    found
}

/// Where a block ends; quotes hide its end from Jinja's lexer, but not that of a comment.
fn end_of_block(bytes: &[u8], from: usize, close: &[u8]) -> usize {
    let mut quote = None;
    let mut at = from;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'\'' | b'"')) if close != b"#}" => quote = Some(byte),
            (None, _) if bytes[at..].starts_with(close) => return at,
            (None, _) => {}
        }
        at += 1;
    }
    bytes.len()
}

fn tokens(code: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = code.char_indices().peekable();
    while let Some((at, character)) = rest.next() {
        match character {
            '\'' | '"' => {
                let mut raw = String::new();
                while let Some((_, next)) = rest.next() {
                    if next == character {
                        break;
                    }
                    raw.push(next);
                    if next == '\\'
                        && let Some((_, escaped)) = rest.next()
                    {
                        raw.push(escaped);
                    }
                }
                found.push(Token::Text(unescape(&raw)));
            }
            c if c.is_alphabetic() || c == '_' => {
                let mut end = at + c.len_utf8();
                while let Some((next, c)) = rest.peek().copied() {
                    if !(c.is_alphanumeric() || c == '_') {
                        break;
                    }
                    end = next + c.len_utf8();
                    rest.next();
                }
                found.push(Token::Name(code[at..end].to_owned()));
            }
            c if c.is_ascii_digit() => {
                while rest
                    .peek()
                    .is_some_and(|(_, c)| c.is_ascii_alphanumeric() || *c == '_')
                {
                    rest.next();
                }
                found.push(Token::Number);
            }
            c if c.is_whitespace() => {}
            c => found.push(Token::Sign(u8::try_from(c).unwrap_or(b'?'))),
        }
    }
    found
}

/// A text's value: Jinja knows the escapes of Python.
pub(super) fn unescape(raw: &str) -> String {
    let mut text = String::new();
    let mut rest = raw.chars().peekable();
    while let Some(character) = rest.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        let Some(escape) = rest.next() else {
            text.push('\\');
            break;
        };
        let (radix, most) = match escape {
            'x' => (16, 2),
            'u' => (16, 4),
            'U' => (16, 8),
            '0'..='7' => (8, 2),
            _ => (0, 0),
        };
        if most == 0 {
            match escape {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                '\n' => {}
                '\\' | '\'' | '"' => text.push(escape),
                // `\a` and its like, and what is no escape.
                other => text.extend(['\\', other]),
            }
            continue;
        }
        let mut code = if radix == 8 {
            escape.to_digit(8).unwrap_or(0)
        } else {
            0
        };
        for _ in 0..most {
            let Some(digit) = rest.peek().and_then(|c| c.to_digit(radix)) else {
                break;
            };
            code = code.saturating_mul(radix).saturating_add(digit);
            rest.next();
        }
        text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    text
}

/// Attributes by name: `.name`, `['name']`, `|attr('name')`.
fn attributes(tokens: &[Token], say: &mut impl FnMut(String)) {
    for (place, token) in tokens.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|place| tokens.get(place));
        let after = tokens.get(place + 1);
        match token {
            Token::Name(name)
                if before == Some(&Token::Sign(b'.'))
                    && (name.starts_with('_') || INTERNAL.contains(&&name[..])) =>
            {
                say(format!("reaches for `.{name}`"));
            }
            // The filter takes any attribute; a name that is computed is meant to be hidden.
            Token::Name(name)
                if name == "attr"
                    && before == Some(&Token::Sign(b'|'))
                    && after == Some(&Token::Sign(b'(')) =>
            {
                match tokens.get(place + 2..place + 4) {
                    Some([Token::Text(text), Token::Sign(b')')]) => {
                        if text.starts_with('_') || INTERNAL.contains(&&text[..]) {
                            say(format!("reaches for `{text}` by the filter `attr`"));
                        }
                    }
                    _ => say("takes an attribute by a computed name".to_owned()),
                }
            }
            Token::Name(name) if name.starts_with("__") && name.ends_with("__") => {
                say(format!("reaches for `{name}`"));
            }
            Token::Name(name) if name == "lipsum" => say("uses `lipsum`".to_owned()),
            Token::Text(text) if INTERNAL.contains(&&text[..]) && is_subscript(tokens, place) => {
                say(format!("reaches for `['{text}']`"));
            }
            _ => {}
        }
    }
}

fn is_subscript(tokens: &[Token], place: usize) -> bool {
    let before = place.checked_sub(1).and_then(|place| tokens.get(place));
    let target = place.checked_sub(2).and_then(|place| tokens.get(place));
    before == Some(&Token::Sign(b'['))
        && matches!(
            target,
            Some(Token::Name(_) | Token::Text(_) | Token::Sign(b')' | b']'))
        )
}

/// Internal names in texts, whole or joined from pieces.
fn spelled(tokens: &[Token], say: &mut impl FnMut(String)) {
    let mut pieces: Vec<&str> = Vec::new();
    let mut names = String::new();
    for (place, token) in tokens.iter().enumerate() {
        match token {
            Token::Text(text) => {
                if let Some(name) = internal(text) {
                    say(format!("spells `{name}`"));
                }
                pieces.push(text);
            }
            // Keywords of a call, which `dict(...)|join` makes a text of.
            Token::Name(name) if tokens.get(place + 1) == Some(&Token::Sign(b'=')) => {
                names.push_str(name);
            }
            _ => {}
        }
    }
    let joined = pieces.concat();
    let reversed: String = joined.chars().rev().collect();
    let backwards = pieces.iter().rev().copied().collect::<String>();
    for text in [joined, reversed, backwards, names] {
        if let Some(name) = internal(&text) {
            say(format!("spells `{name}` in pieces"));
        }
    }
    for piece in &pieces {
        let reversed: String = piece.chars().rev().collect();
        if let Some(name) = internal(&reversed).filter(|_| internal(piece).is_none()) {
            say(format!("spells `{name}` backwards"));
        }
    }
    // Underscores one by one, as `'_'*2` or `'%c'|format(95)`.
    let bare = |wanted: &str| {
        pieces
            .iter()
            .any(|piece| piece.trim_matches('_') == wanted && piece.len() < wanted.len() + 4)
    };
    let builds = tokens
        .iter()
        .any(|token| matches!(token, Token::Sign(b'~' | b'+' | b'|' | b'*' | b'%')));
    let wanted = ["globals", "subclasses", "builtins", "mro", "getattribute"];
    if let Some(name) = wanted.iter().find(|name| builds && bare(name)) {
        say(format!("spells `__{name}__` in pieces"));
    }
}

fn internal(text: &str) -> Option<&'static str> {
    if !text.contains("__") {
        return None;
    }
    DUNDERS.iter().find(|name| text.contains(**name)).copied()
}

#[cfg(test)]
mod tests {
    use super::dangers;

    #[test]
    fn every_spelling_of_an_internal_name_is_found() {
        for template in [
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "{{ messages['__class__'] }}",
            "{{ messages[\"\\x5f\\x5fclass\\x5f\\x5f\"] }}",
            "{{ messages|attr('__init__') }}",
            "{{ messages|attr('__cla' ~ 'ss__') }}",
            "{{ messages['__cla' + 'ss__'] }}",
            "{{ messages['__ssalc__'|reverse] }}",
            "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
            "{{ lipsum.__globals__ }}",
            "{% set x = namespace.__init__ %}",
            "{% for x in ()|attr(dict(__class__=1)|join) %}{% endfor %}",
            "{{ self._TemplateReference__context }}",
            "{{ '{0.__class__}'.format(messages) }}",
            "{{ messages|map(attribute='__class__')|list }}",
            "{{ '%}' }}{{ x.__globals__ }}",
            "{{ x[('_'*2) ~ 'globals' ~ ('_'*2)] }}",
            "{%- if x.mro() -%}{%- endif -%}",
        ] {
            assert!(!dangers(template).is_empty(), "{template}");
        }
    }

    #[test]
    fn ordinary_templates_pass() {
        for template in [
            "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}",
            "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0].content | trim %}{% endif %}",
            "{%- set ns = namespace(found=false) -%}{%- set ns.found = true -%}",
            "{# __class__ is not reached for in a comment #}{{ 'a' }}",
            "text with __init__ outside of any code",
            "{{ raise_exception('Only user and assistant roles are supported!') }}",
            "{{- tools | tojson(indent=4) }}{{ strftime_now('%d %b %Y') }}",
            "{{ '__en__' ~ message.content.split('</think>')[-1].lstrip('\\n') }}",
            "{% generation %}{{ message['content'] }}{% endgeneration %}",
            "{% macro render(x) %}{{ x.items() | map(attribute='name') | join(', ') }}{% endmacro %}",
        ] {
            assert_eq!(dangers(template), [], "{template}");
        }
    }
}
