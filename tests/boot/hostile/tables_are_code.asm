; A page table shares its page with the code that runs: each accessed and dirty bit that the walk sets, and each entry
; that the code changes, is a write to a page of code.
%include "rom.inc"
WINDOW  equ 0x400000
main:   mov edi, FREE
        mov eax, 0x83
.fill:  mov [edi], eax
        add edi, 4
        add eax, 0x400000
        jnc .fill
        mov dword [FREE + 4], table + 3         ; 400000 and up
        mov eax, cr4
        or eax, 1 << 4
        mov cr4, eax
        mov eax, FREE
        mov cr3, eax
        mov eax, cr0
        or eax, 1 << 31
        mov cr0, eax
        jmp table_code
        align 4096
table:  times 256 dd 0
table_code:
        mov ebp, 2000
.loop:  xor ecx, ecx
.page:  mov eax, ecx                            ; map page ECX of the window to some page of RAM
        shl eax, 12
        lea eax, [eax + FREE + 0x100003]
        mov [table + ecx * 4], eax
        mov edx, ecx
        shl edx, 12
        invlpg [WINDOW + edx]
        cmp byte [WINDOW + edx], 0              ; sets accessed
        inc dword [WINDOW + edx + 4]            ; sets dirty
        mov eax, [table + ecx * 4]
        and eax, 0x60
        cmp eax, 0x60
        jne .wrong
        inc ecx
        cmp ecx, 8
        jne .page
        dec ebp
        jnz .loop
        say "went on"
        ret
.wrong: say "accessed and dirty bits are not there"
        ret
        align 4096
%include "end.inc"
