; String instructions that run from RAM's end into nowhere, from nowhere into RAM, and wrap around 4 GiB.
%include "rom.inc"
main:   mov edi, RAM - 0x1000
        mov ecx, 0x2000
        mov al, 0x5a
        rep stosb
        cmp byte [RAM - 1], 0x5a
        jne .wrong
        mov esi, RAM - 0x1000
        mov edi, RAM - 0x800
        mov ecx, 0x400
        rep movsd
        mov esi, NOWHERE
        mov edi, FREE
        mov ecx, 0x4000
        rep movsd
        mov esi, FREE
        mov edi, NOWHERE - 0x20
        mov ecx, 0x4000
        rep movsw
        mov edi, 0xffffff00                     ; through the ROM's end, to address 0
        mov ecx, 0x180
        xor al, al
        rep stosb
        mov edi, FREE
        mov dx, 0x80
        mov ecx, 0x1000
        rep insb
        mov esi, RAM - 0x80
        mov ecx, 0x100
        rep outsb
        std
        mov esi, NOWHERE + 0x100
        mov edi, FREE + 0x100
        mov ecx, 0x200
        rep movsb
        cld
        mov edi, NOWHERE
        mov ecx, 0x10000
        mov al, 0
        repne scasb
        say "went on"
        ret
.wrong: say "the end of RAM was not written"
        ret
%include "end.inc"
